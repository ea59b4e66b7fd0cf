"""Safetensors models in torch and Triton: a paged KV cache and continuous batching for many users."""
