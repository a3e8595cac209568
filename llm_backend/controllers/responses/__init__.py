"""Responses: answered by a local model, kept, and gone on from; or relayed."""
