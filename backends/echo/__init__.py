"""A worker without a model: scripted load time, token rate, memory and crashes."""
