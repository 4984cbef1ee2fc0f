"""Precompute adversarial gradients once, share them, train on them many times.

Public names are listed in ``__init__.pyi`` and explained in docs/api.md; everything else may change. Names are imported
when they are first used, so that ``import gradshard`` takes no time.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
