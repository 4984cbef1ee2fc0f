"""The parameter files that `python -m pipeline use` switches between."""
