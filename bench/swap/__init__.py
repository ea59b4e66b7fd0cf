"""Swaps of real worker processes by the real proxy: starts, waits, and what they cost."""
