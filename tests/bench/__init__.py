"""Benchmarks: our figure and a peer's, measured in one run. `python -m tests.bench [--only loss,operator]`."""
