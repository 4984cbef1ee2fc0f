"""Labelled images: raw files in, one fixed order on disk."""
