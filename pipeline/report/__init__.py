"""Results as tables, figures and claims, beside the published figures."""
