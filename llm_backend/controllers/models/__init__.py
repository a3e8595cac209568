"""Models: list, retrieve, delete, load and unload.

operations.py  the list of models
loading.py     explicit load and unload
"""
