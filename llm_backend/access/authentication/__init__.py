"""API keys, principals and permissions: the caller of a request, and its rights."""
