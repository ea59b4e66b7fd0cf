"""GGUF models over llama-cpp-python's low-level API: continuous batching, shared prompt prefixes."""
