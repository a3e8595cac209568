"""Speculative decoding: prompt lookup, a draft model, and how far ahead each one drafts."""
