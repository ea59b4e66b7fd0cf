"""The way in from other tools: their configurations and model stores, told as swapper's configuration.

Every source becomes a `Draft`; `render` writes it as commented YAML. Nothing here changes a source.
"""
