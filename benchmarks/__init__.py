"""Benchmarks: `python -m benchmarks NAME`, figures kept in docs/benchmarks.md with the command that made them."""
