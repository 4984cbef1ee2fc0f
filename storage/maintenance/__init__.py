"""Stores that were published: verify, repair, compare."""
