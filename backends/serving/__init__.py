"""What workers share: the OpenAI surface over any engine that keeps `engine.Engine`."""
