"""Decisions: questions about one input, answered by probabilities.

create.py     the operation
input.py      the input as messages of a chat
questions.py  the questions as texts with labels, and their answers
"""
