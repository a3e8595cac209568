"""Embeddings and relevance scores: inputs batched over requests."""
