"""Performance claims, one module each: every number is a ratio of things measured in one run, interleaved.

``python -m benchmarks`` measures and keeps all, ``python -m benchmarks NAME`` one; ``python -m benchmarks.NAME`` prints
one alone.
"""
