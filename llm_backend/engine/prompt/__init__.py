"""Prompts as tokens, with runs of media embeddings between them.

prompt_tokens.py  tokenizes a prompt
media_runs.py     pictures and sounds as runs of placeholder tokens
"""
