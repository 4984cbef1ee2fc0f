"""Errors over seeds of training: their cells, their comparisons, and what may be said of them."""
