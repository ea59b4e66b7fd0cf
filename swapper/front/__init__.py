"""The HTTP edge: from a client's request to a worker's answer and back."""
