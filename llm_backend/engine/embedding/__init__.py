"""Embeddings and relevance scores: inputs batched over requests.

embedder.py        the requests, and the inputs of each pass
pair_tokenizer.py  a query and a document as the input of a rerank model
"""
