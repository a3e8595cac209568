"""Input of responses: items, files, pictures, prompts and tools as a chat request."""
