"""Prompts as tokens, with runs of media embeddings between them."""
