"""Decisions, and nothing else: no clock, no I/O, no tasks, no logging. Time is an argument."""
