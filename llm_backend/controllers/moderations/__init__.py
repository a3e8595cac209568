"""Moderation: a model classifies inputs and outputs, category by category."""
