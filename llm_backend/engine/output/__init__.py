"""Output of a sequence: sampled tokens as text deltas.

output_builder.py  one answer: sampling steps, grammar, logprobs, finish reason
text_stream.py     incremental detokenization and stop strings
"""
