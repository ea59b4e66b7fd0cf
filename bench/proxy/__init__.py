"""What the proxy costs: see README.md."""
