"""Training runs that can be killed and resumed, and their initial weights."""
