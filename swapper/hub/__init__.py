"""Models from the Hugging Face hub: what a repository holds, which of it is wanted, and the download.

`huggingface_hub` is imported by `repository` only, and only when something is pulled.
"""
