"""Logprobs of labels: the labels of a question as a tree of tokens, its paths as sequences, the
logits of each node as logprobs."""
