"""The model's own byte-level BPE tokenizer, in the form that llama.cpp reads as `gpt2`.

Merges are learnt on words without the blank before them, and digits never merge. A last group of
merges joins the blank to frequent whole words. So a rare word has the same pieces with a blank
before it and without, which makes copying easy, and every digit is a token, which makes sums easy.
"""

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

CONTROL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
MARKS = ("<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>")
BLANK = "Ġ"


def train_tokenizer(texts: Iterable[str], *, pieces: int, blank_words: int) -> Tokenizer:
    """A tokenizer of `pieces` tokens (the 256 bytes too) and `blank_words` words with a blank."""
    pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    counts = Counter(
        word for text in texts for word, _ in pre_tokenizer.pre_tokenize_str(_without_marks(text))
    )
    vocabulary, merges = _learn(counts, pieces)
    for word in _frequent_after_blank(counts, vocabulary, blank_words):
        merges.append((BLANK, word))
        vocabulary[BLANK + word] = len(vocabulary)
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(
        [AddedToken(token, special=True, normalized=False) for token in CONTROL]
    )
    tokenizer.add_tokens([AddedToken(token, special=False, normalized=False) for token in MARKS])
    return tokenizer


def merges_of(tokenizer: Tokenizer) -> list[str]:
    """The merges in order, as "left right"."""
    return [" ".join(merge) for merge in json.loads(tokenizer.to_str())["model"]["merges"]]


def load_tokenizer(path: Path) -> Tokenizer:
    """The tokenizer that `train.py` saved."""
    return Tokenizer.from_file(str(path))


def _learn(counts: Counter[str], pieces: int) -> tuple[dict[str, int], list[tuple[str, str]]]:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(rf"\n|{BLANK}|\d"), behavior="isolated")]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=pieces,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        limit_alphabet=256,
        show_progress=False,
    )
    repeated = (word for word, count in sorted(counts.items()) for _ in range(min(count, 400)))
    tokenizer.train_from_iterator(repeated, trainer)
    model = json.loads(tokenizer.to_str())["model"]
    return model["vocab"], [tuple(merge) for merge in model["merges"]]


def _frequent_after_blank(
    counts: Counter[str], vocabulary: dict[str, int], limit: int
) -> list[str]:
    found = Counter(
        {
            word[1:]: count
            for word, count in counts.items()
            if word.startswith(BLANK) and word[1:] in vocabulary and _may_join(word[1:])
        }
    )
    return [word for word, _ in found.most_common(limit)]


def _may_join(word: str) -> bool:
    """Single letters and digits stay apart from the blank, except the words "a" and "I"."""
    return len(word) > 1 or word in ("a", "I") or (word != BLANK and not word.isalnum())


def _without_marks(text: str) -> str:
    for mark in (*CONTROL, *MARKS):
        text = text.replace(mark, "\n")
    return text
