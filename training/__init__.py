"""How the demo models are made: corpus, tokenizer, training and export. Not shipped."""
