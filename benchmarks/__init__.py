"""Performance claims, one module each: every number is a ratio of things measured in one run, interleaved."""
