"""The formats: Zarr datasets, sign stores, weights, results; bytes, digests, order, streaming.

This package knows no model and no attack, and imports neither ``pipeline`` nor ``stages``.
"""

__version__ = "0.2.0"
