"""Maintenance of published stores: verify, repair, compare, sign."""
