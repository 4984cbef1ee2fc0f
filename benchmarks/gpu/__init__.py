"""The parts of `benchmarks/gpu.sh`, a module each: what is measured on a GPU, in one command of a few minutes."""
