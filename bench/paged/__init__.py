"""Benchmarks of the paged engine."""
