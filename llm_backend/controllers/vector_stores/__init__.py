"""Vector stores: file ingestion, hybrid search, and retrieval for models (RAG).

stores.py             create, list, get, modify, delete
files.py              files of a store
file_batches.py       file batches of a store
search.py             search in one store
chunks.py             chunks of a file's text
request_values.py     filters, chunking and ranking options of requests
response_objects.py   objects of the document
upstream_embedder.py  an embedding model of an upstream
ingestion/            extraction, chunking, embedding, indexing
retrieval/            hybrid search, and passages for models
"""
