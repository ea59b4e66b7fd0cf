"""What clients speak beside OpenAI's chat completions, as pure translations to that and back.

Bytes and values in, bytes and values out: no clock, no I/O. `front/translated.py` does the rest.
"""
