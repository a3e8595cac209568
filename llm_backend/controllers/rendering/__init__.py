"""Answers in the shape of the document: chunks, event streams, lists, errors."""
