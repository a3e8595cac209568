"""Conversations as tokens, and those of like length as batches."""

import random
from collections.abc import Iterator, Sequence
from itertools import islice, pairwise, takewhile

import numpy as np
import torch
from tokenizers import Tokenizer

from models.builtin.chat import Chat
from models.builtin.corpus import conversations
from models.builtin.facts import read_knowledge
from models.builtin.skills import UNKNOWN_ANSWER

FILLER = "<|endoftext|>"
ASSISTANT = "<|im_start|>assistant\n"
ENDED = "<|im_end|>\n"
LONGEST = 1536
SORTED_TOGETHER = 1500


def batches(tokenizer: Tokenizer, *, tokens_per_batch: int, seed: int) -> Iterator[torch.Tensor]:
    """Without end: right-pad int64 batches (rows, length), each of like lengths, shuffled."""
    rng = random.Random(seed)
    stream = tokenize(tokenizer, seed)
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
        yield from (pad(group, tokenizer) for group in groups if group)


def tokenize(tokenizer: Tokenizer, seed: int) -> Iterator[list[int]]:
    """The conversations of a seed, cut at LONGEST; JSON keys are sorted in every second one.

    Two of three last answers that their opening settles end there: choosing the fact is what takes
    practice, and so a step holds more questions.
    """
    chats = (Chat(), Chat(sort_keys=True))
    openings = settling_openings(tokenizer)
    for index, talk in enumerate(conversations(seed)):
        text = chats[index % 2].whole(talk.messages, talk.tools)
        if talk.is_settled_by_opening and index % 3:
            before, answer = text.rsplit(ASSISTANT, 1)
            answer_ids = tokenizer.encode(answer).ids
            opening = openings[tuple(answer_ids)]
            ids = tokenizer.encode(before + ASSISTANT).ids + answer_ids[:opening]
        else:
            ids = tokenizer.encode(text).ids
        yield ids[:LONGEST]


def settling_openings(tokenizer: Tokenizer) -> dict[tuple[int, ...], int]:
    """For the tokens of each known answer: how many tell it from the others, and one more."""
    answers = {fact.answer for fact in read_knowledge().facts} | {UNKNOWN_ANSWER}
    encoded = sorted(tuple(tokenizer.encode(f"{answer}{ENDED}").ids) for answer in answers)
    shared = [_common_prefix(*pair) for pair in pairwise(encoded)]
    return {
        ids: max(before, behind) + 2
        for ids, before, behind in zip(encoded, [0, *shared], [*shared, 0], strict=True)
    }


def _common_prefix(left: Sequence[int], right: Sequence[int]) -> int:
    """Returns the number of tokens of the common prefix."""
    return sum(
        1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(left, right, strict=False))
    )


def pad(rows: list[list[int]], tokenizer: Tokenizer) -> torch.Tensor:
    """Returns the rows as one array, padded with the token that ends texts."""
    filler = tokenizer.token_to_id(FILLER)
    longest = max(map(len, rows))
    filled = [row + [filler] * (longest - len(row)) for row in rows]
    return torch.from_numpy(np.array(filled, np.int64))


def learnt(tokens: torch.Tensor, tokenizer: Tokenizer) -> torch.Tensor:
    """Mask of the shape of `tokens`: the next token is the assistant's, and no padding."""
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
