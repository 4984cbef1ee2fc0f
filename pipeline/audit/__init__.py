"""Checks of other people's stores: recompute some rows, and see how far the signs hold for changed images."""
