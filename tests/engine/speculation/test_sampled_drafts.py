"""Sampled tokens that verify a draft have exactly the model's distribution.

A draft model proposes its likeliest token, which is a distribution of one token. The rejection rule
accepts that with the probability that the model gives it, and draws another one from the rest of
the model's distribution otherwise. To draw from the whole and compare is the same.
"""

import numpy as np
import pytest

from llm_backend.engine.messages import Sampling
from llm_backend.engine.messages.address import Address
from llm_backend.engine.output.output_builder import OutputBuilder
from llm_backend.engine.sequence import Sequence
from tests.engine.fakes import END, LETTERS, FakeVocabulary, generate, logits_after

ANSWERS, LENGTH, DRAFTED = 2000, 4, 3
MOST_EXCESS = 4
FEWEST = 5  # answers that a class of the test is expected to have


def transitions(temperature: float, top_p: float) -> np.ndarray:
    """Probability of each next token after each token: [vocab, vocab] float64."""
    rows = []
    for token in range(len(LETTERS)):
        logits = logits_after([token]).astype(np.float64)
        logits[END] = -np.inf  # it is ignored
        row = np.exp((logits - logits.max()) / temperature)
        row /= row.sum()
        order = np.argsort(-row)
        before = np.cumsum(row[order]) - row[order]
        row[order[before >= top_p]] = 0
        rows.append(row / row.sum())
    return np.array(rows)


def excess(tokens: list[int], expected: np.ndarray) -> float:
    """By how many standard deviations Pearson's statistic of a sample exceeds its mean, with rare
    tokens in one class."""
    counts = np.bincount(tokens, minlength=len(LETTERS))
    expected = expected * len(tokens)
    frequent = expected >= FEWEST
    rare = expected[~frequent].sum()
    assert not counts[expected == 0].any(), "a token that top-p removes"
    statistic = ((counts - expected)[frequent] ** 2 / expected[frequent]).sum()
    if rare:
        statistic += (counts[~frequent].sum() - rare) ** 2 / rare
    freedom = frequent.sum() - (rare == 0)
    return float((statistic - freedom) / np.sqrt(2 * freedom))


def answer(seed: int, temperature: float, top_p: float, logits: list) -> tuple[list[int], int]:
    """The tokens of an answer, each of whose passes verifies the likeliest continuation, and how
    many drafted tokens were accepted."""
    prompt = [LETTERS.index(letter) for letter in "say it"]
    command = generate(
        prompt,
        max_tokens=LENGTH,
        ignore_eos=True,
        sampling=Sampling(temperature=temperature, top_p=top_p, seed=seed),
    )
    sequence = Sequence(
        request=Address(1, "1"),
        index=0,
        tokens=prompt,
        max_length=len(prompt) + LENGTH,
        arrived_at=0,
    )
    builder, accepted = OutputBuilder(command, sequence, FakeVocabulary()), 0
    while not builder.is_finished:
        draft = [sequence.tokens[-1]]
        for _ in range(DRAFTED):
            draft.append(1 + int(logits[draft[-1]][1:].argmax()))
        rows = [logits[token] for token in draft]
        accepted += builder.advance_with_draft(rows, draft[1:])[1]
    return sequence.tokens[-LENGTH:], accepted


@pytest.mark.parametrize(("temperature", "top_p"), [(0.5, 1.0), (1.5, 0.9)])
def test_sampled_drafts_have_the_distribution_of_the_model(temperature, top_p):
    logits = [logits_after([token]) for token in range(len(LETTERS))]
    answers = [answer(seed, temperature, top_p, logits) for seed in range(ANSWERS)]
    steps, expected = transitions(temperature, top_p), np.eye(len(LETTERS))[LETTERS.index("t")]
    other = transitions(1.3 * temperature, 1.0)[LETTERS.index("t")]

    assert 0.1 < sum(accepted for _, accepted in answers) / (ANSWERS * LENGTH) < 0.7
    assert excess([tokens[0] for tokens, _ in answers], other) > 2 * MOST_EXCESS  # it would notice
    for position in range(LENGTH):
        expected = expected @ steps
        assert excess([tokens[position] for tokens, _ in answers], expected) < MOST_EXCESS
