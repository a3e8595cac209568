"""Moderations: inputs and outputs judged by a model, category by category."""
