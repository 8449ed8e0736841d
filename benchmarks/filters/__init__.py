"""Benchmarks of the filters."""
