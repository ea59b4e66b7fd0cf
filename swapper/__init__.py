"""One endpoint for every model on the box."""

__version__ = "0.1.0"
