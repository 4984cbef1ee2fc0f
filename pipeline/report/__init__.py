"""Results as tables, figures and claims, beside the paper's figures."""
