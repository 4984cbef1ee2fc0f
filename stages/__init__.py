"""One command per pipeline stage: it reads parameters, resolves paths, and calls ``pipeline`` and ``storage``."""
