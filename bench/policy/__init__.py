"""Compares the rule of turns with other rules, and with what hindsight would have done."""
