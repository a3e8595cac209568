"""Output of a sequence: sampled tokens as text deltas."""
