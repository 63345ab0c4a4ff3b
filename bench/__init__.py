"""Benchmarks: real processes on this machine, side by side in one run. `python -m bench --help`."""
