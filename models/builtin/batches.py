"""Conversations as tokens, and those of like length as batches."""

import random
from collections.abc import Iterator
from itertools import islice

import numpy as np
import torch
from tokenizers import Tokenizer

from models.builtin.chat import Chat
from models.builtin.corpus import conversations

FILLER = "<|endoftext|>"
ASSISTANT = "<|im_start|>assistant\n"
LONGEST = 1536
OPENING = 7
SORTED_TOGETHER = 600


def batches(tokenizer: Tokenizer, *, tokens_per_batch: int, seed: int) -> Iterator[torch.Tensor]:
    """Without end: right-padded int64 batches (rows, length), each of like lengths, shuffled."""
    rng = random.Random(seed)
    stream = tokenised(tokenizer, seed)
    while True:
        rows = sorted(
            islice(stream, SORTED_TOGETHER), key=lambda row: (len(row) // 8, rng.random())
        )
        groups: list[list[list[int]]] = [[]]
        for row in rows:
            if (len(groups[-1]) + 1) * len(row) > tokens_per_batch:
                groups.append([])
            groups[-1].append(row)
        rng.shuffle(groups)
        yield from (padded(group, tokenizer) for group in groups if group)


def tokenised(tokenizer: Tokenizer, seed: int) -> Iterator[list[int]]:
    """The conversations of a seed, cut at LONGEST; JSON keys are sorted in every second one.

    Two of three last answers that their opening settles end after OPENING tokens: choosing the fact
    is what takes practice, and so a step holds more questions.
    """
    chats = (Chat(), Chat(sort_keys=True))
    for index, talk in enumerate(conversations(seed)):
        text = chats[index % 2].whole(talk.messages, talk.tools)
        if talk.is_told_by_opening and index % 3:
            before, answer = text.rsplit(ASSISTANT, 1)
            ids = tokenizer.encode(before + ASSISTANT).ids + tokenizer.encode(answer).ids[:OPENING]
        else:
            ids = tokenizer.encode(text).ids
        yield ids[:LONGEST]


def padded(rows: list[list[int]], tokenizer: Tokenizer) -> torch.Tensor:
    """The rows as one array, filled up with the token that ends texts."""
    filler = tokenizer.token_to_id(FILLER)
    longest = max(map(len, rows))
    filled = [row + [filler] * (longest - len(row)) for row in rows]
    return torch.from_numpy(np.array(filled, np.int64))


def learnt(tokens: torch.Tensor, tokenizer: Tokenizer) -> torch.Tensor:
    """Where the next token is the assistant's, and no filler: a mask of the shape of `tokens`."""
    opening = tokenizer.encode(ASSISTANT).ids
    starts = torch.ones_like(tokens, dtype=torch.bool)
    for offset, token in enumerate(reversed(opening)):
        starts &= tokens.roll(offset, 1) == token
    starts[:, : len(opening) - 1] = False
    opened = starts.int().cumsum(1)
    is_end = tokens == tokenizer.token_to_id("<|im_end|>")
    closed = torch.where(is_end, opened, 0).cummax(1).values
    is_before_filler = tokens.roll(-1, 1) == tokenizer.token_to_id(FILLER)
    return (opened > closed) & ~is_before_filler
