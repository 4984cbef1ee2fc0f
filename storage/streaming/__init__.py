"""Rows in shuffled order, from memory or in windows."""
