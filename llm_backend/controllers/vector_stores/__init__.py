"""Vector stores: file ingestion, hybrid search, and retrieval for models (RAG)."""
