"""Times and memory, measured by `make bench`; each `bench_*.py` yields rows, `results/` keeps them."""
