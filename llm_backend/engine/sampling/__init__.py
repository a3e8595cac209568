"""Sampling: from a row of logits to one token, in numpy."""

from llm_backend.engine.sampling.choice import Alternative, Choice, NoChoice, log_probabilities
from llm_backend.engine.sampling.likeliest import Row
from llm_backend.engine.sampling.sampler import Sampler

__all__ = ["Alternative", "Choice", "NoChoice", "Row", "Sampler", "log_probabilities"]
