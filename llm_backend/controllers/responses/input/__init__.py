"""Input of responses: items, files, images, prompts and tools as a chat request."""
