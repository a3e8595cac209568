"""API keys and principals: the caller of a request, and what it may use."""
