"""What a swapper costs that nobody asks: time to listen, memory, processor time."""
