"""Benchmarks of the GGUF engine."""
