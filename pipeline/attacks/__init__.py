"""The attacks, and the one table of them: `registry`."""
