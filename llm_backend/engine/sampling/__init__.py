"""Sampling: from a row of logits to one token, in numpy and C.

sampler.py                one sampling step, in the order of its parameters; the seed
penalties.py              logits processors: penalties and logit bias
dry.py                    DRY penalty
top_k.py                  the largest values of a row
filters.py                top-p, min-p, typical-p, XTC, and the random choice
native_nucleus.py         the same sampling step in C (nucleus.c)
mirostat.py               Mirostat
choice.py                 the chosen token and its logprobs
parameter_limits.py       validation of sampling parameters
constraint.py             constrained decoding by grammars
grammar_limits.py         limits of a grammar
pattern_intersections.py  how many patterns of a schema apply to one text
invalid_schema.py         finds the invalid part of a schema
"""

from llm_backend.engine.sampling.choice import Choice, NoChoice, log_probabilities, log_sum_exp
from llm_backend.engine.sampling.sampler import Sampler
from llm_backend.engine.sampling.top_k import Row

__all__ = ["Choice", "NoChoice", "Row", "Sampler", "log_probabilities", "log_sum_exp"]
