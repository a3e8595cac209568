"""Embedding models of vector stores.

`embedders.py`          local models and the choice of a model
`upstream_embedder.py`  a model of an upstream
"""
