"""`swapper bench`: how quick any OpenAI endpoint is, asked as its clients ask it."""
