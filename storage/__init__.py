"""File formats: Zarr datasets, sign stores, weights and results, with their digests, order and streaming.

This package contains no model and no attack, and imports neither ``pipeline`` nor ``stages``.
"""

__version__ = "0.2.0"
