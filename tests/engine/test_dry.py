"""DRY, against the same rule written out with loops."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from llm_backend.engine.messages import Sampling
from llm_backend.engine.sampling.dry import DryPenalty

LABELS = [b"a", b"b", b"ab", b"c\n", b""]
TOKENS = st.lists(st.integers(0, len(LABELS) - 1), max_size=40)


def plain(tokens: list[int], sampling: Sampling) -> dict[int, float]:
    """The penalty of each token that has one."""
    window = sampling.dry_penalty_last_n
    tokens = tokens if window is None else tokens[-window:]
    limit = len(tokens) - unbroken(tokens, sampling.dry_sequence_breakers)
    if len(tokens) <= sampling.dry_allowed_length or limit < sampling.dry_allowed_length:
        return {}
    penalties: dict[int, float] = {}
    for index in range(1, len(tokens)):
        length = 0
        while length < index and tokens[index - 1 - length] == tokens[-1 - length]:
            length += 1
        length = min(length, limit)
        label = LABELS[tokens[index]]
        is_breaker = any(one.encode() in label for one in sampling.dry_sequence_breakers)
        if length < sampling.dry_allowed_length or is_breaker:
            continue
        penalty = sampling.dry_multiplier * sampling.dry_base ** (
            length - sampling.dry_allowed_length
        )
        penalties[tokens[index]] = max(penalty, penalties.get(tokens[index], 0))
    return penalties


def unbroken(tokens: list[int], breakers: tuple[str, ...]) -> int:
    """The index after the last token in which a breaker ends."""
    text, index = b"", 0
    for count, token in enumerate(tokens, start=1):
        before, text = len(text), text + LABELS[token]
        for breaker in breakers:
            begin = text.rfind(breaker.encode())
            if begin >= 0 and begin + len(breaker) > before:
                index = count
    return index


@given(
    prompt=TOKENS,
    answer=TOKENS,
    sampling=st.builds(
        Sampling,
        dry_multiplier=st.sampled_from([0.5, 2.0]),
        dry_base=st.sampled_from([1.0, 1.75]),
        dry_allowed_length=st.integers(0, 4),
        dry_penalty_last_n=st.none() | st.integers(1, 30),
        dry_sequence_breakers=st.sampled_from([(), ("c",), ("ba", "\n"), ("bb",)]),
    ),
)
def test_dry_penalty_follows_its_formula(prompt, answer, sampling):
    dry = DryPenalty(sampling, prompt, LABELS.__getitem__)
    for token in answer:
        dry.accept(token)
    row = np.zeros(len(LABELS), dtype=np.float32)
    dry.apply(row)

    # breakers before the window are forgotten with it, but one may reach into it
    window = sampling.dry_penalty_last_n
    if window is None or len(prompt) + len(answer) <= window:
        expected = plain(prompt + answer, sampling)
        assert np.allclose(row, [-expected.get(token, 0) for token in range(len(LABELS))])


@given(prompt=TOKENS, answer=TOKENS, window=st.integers(1, 30), allowed=st.integers(0, 4))
def test_dry_penalty_counts_the_window_only(prompt, answer, window, allowed):
    sampling = Sampling(
        dry_multiplier=1,
        dry_penalty_last_n=window,
        dry_allowed_length=allowed,
        dry_sequence_breakers=(),
    )
    dry = DryPenalty(sampling, prompt, LABELS.__getitem__)
    for token in answer:
        dry.accept(token)
    row = np.zeros(len(LABELS), dtype=np.float32)
    dry.apply(row)

    assert np.allclose(row, [-plain(prompt + answer, sampling).get(t, 0) for t in range(5)])


def test_dry_penalty_of_a_long_repetition_is_finite():
    dry = DryPenalty(Sampling(dry_multiplier=1000, dry_base=1000), [1] * 500, LABELS.__getitem__)
    row = np.zeros(len(LABELS), dtype=np.float32)
    dry.apply(row)

    assert np.isfinite(row).all()
    assert row[1] < -1e20
