"""A recognizer of some English words, as the voices of `espeak-ng` speak them.

__init__.py   the words, and the folder of the model
train.py      trains the model, and writes its file
model.onnx    the model: NeMo's CTC form of sherpa-onnx, with a token for each word
tokens.txt    its tokens
"""

from collections.abc import Sequence
from pathlib import Path

__all__ = ["FOLDER", "TOKENS", "WORDS", "count_word_errors"]

FOLDER = Path(__file__).parent

_TEXT = """
zero one two three four five six seven eight nine ten eleven twelve twenty thirty forty
fifty hundred thousand yes no stop start open close left right up down red green blue
black white light door window water fire house morning evening today tomorrow monday
friday please thank you hello good bye the is not cat dog bird tree river mountain bread
apple coffee music letter number answer question
"""
WORDS: Sequence[str] = _TEXT.split()

TOKENS: Sequence[str] = [f"▁{word}" for word in WORDS]
"""Tokens of the model: words, after the mark of a new one."""


def count_word_errors(spoken: Sequence[str], heard: Sequence[str]) -> int:
    """Returns how many words must be added, removed or replaced to make one list of the other."""
    row = list(range(len(heard) + 1))
    for removed, word in enumerate(spoken, 1):
        diagonal, row[0] = row[0], removed
        for at, other in enumerate(heard, 1):
            best = min(row[at] + 1, row[at - 1] + 1, diagonal + (word != other))
            diagonal, row[at] = row[at], best
    return row[-1]
