"""Parts of `benchmarks/gpu.sh`, a module each: all that is measured on a GPU, in one command of a few minutes."""
