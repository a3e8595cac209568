"""API keys and principals: the caller of a request."""
