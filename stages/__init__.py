"""One command per pipeline stage: reads parameters, resolves paths, calls ``pipeline`` and ``storage``."""
