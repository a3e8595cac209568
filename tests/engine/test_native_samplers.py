"""Our samplers leave and penalise the same tokens as llama.cpp's own."""

import copy
import ctypes

import llama_cpp as native
import numpy as np
import pytest

from llm_backend.engine.messages import Sampling
from llm_backend.engine.sampling.dry import DryPenalty
from llm_backend.engine.sampling.filters import Candidates, exclude_top_choices
from llm_backend.engine.sampling.mirostat import Mirostat

SEEDS = range(12)


class NativeCandidates:
    """A native list of tokens and logits."""

    def __init__(self, logits: np.ndarray) -> None:
        self._data = (native.llama_token_data * len(logits))()
        for token, logit in enumerate(logits):
            self._data[token] = native.llama_token_data(token, float(logit), 0.0)
        self._array = native.llama_token_data_array(self._data, len(logits), -1, False)

    def after(self, sampler) -> dict[int, float]:
        """The tokens that a sampler selects, with their logits."""
        native.llama_sampler_apply(sampler, ctypes.byref(self._array))
        selected = [self._array.data[place] for place in range(self._array.size)]
        return {item.id: item.logit for item in selected}

    @property
    def selected(self) -> int:
        return int(self._array.data[self._array.selected].id)


@pytest.fixture
def sampler():
    """Makes native samplers and frees them."""
    made = []

    def make(name: str, *arguments):
        made.append(getattr(native, f"llama_sampler_init_{name}")(*arguments))
        return made[-1]

    yield make
    for one in made:
        native.llama_sampler_free(one)


def some_logits(seed: int, size: int = 60) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(size).astype(np.float32) * 2


def selected(logits: np.ndarray, **parameters: float) -> set[int]:
    weights = np.exp(logits - logits.max())
    candidates = Candidates.of(weights, Sampling(**parameters))
    if "xtc_threshold" in parameters:
        candidates.exclude_top_choices(parameters["xtc_threshold"])
        alone = exclude_top_choices(weights, parameters["xtc_threshold"])
        assert set(np.flatnonzero(alone)) == set(candidates.tokens.tolist())
    return set(candidates.tokens.tolist())


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("share", [0.05, 0.4, 0.9])
def test_typical_p_agrees_with_llama_cpp(sampler, seed, share):
    logits = some_logits(seed)

    theirs = NativeCandidates(logits).after(sampler("typical", share, 1))
    assert selected(logits, typical_p=share) == set(theirs)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("threshold", [0.02, 0.1, 0.4])
def test_xtc_agrees_with_llama_cpp(sampler, seed, threshold):
    logits = some_logits(seed)

    theirs = NativeCandidates(logits).after(sampler("xtc", 1.0, threshold, 1, 7))
    assert selected(logits, xtc_threshold=threshold) == set(theirs)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("version", [1, 2])
def test_mirostat_agrees_with_llama_cpp(sampler, seed, version):
    """Ours follows whatever token theirs samples, and must be able to sample it."""
    arguments = (14, 3, 1.5, 0.3, 100) if version == 1 else (3, 1.5, 0.3)
    theirs = sampler("mirostat" if version == 1 else "mirostat_v2", *arguments)
    ours = Mirostat(Sampling(mirostat=version, mirostat_tau=1.5, mirostat_eta=0.3))
    for step in range(6):
        logits = some_logits(seed * 100 + step, size=14) / 2
        weights = np.exp(logits - logits.max())
        candidates = NativeCandidates(logits)
        chosen = candidates.after(theirs)
        outcomes = {}
        for fraction in np.linspace(0, 1, 1500, endpoint=False):
            next_ours = copy.copy(ours)
            outcomes[next_ours.sample(weights, fraction)] = next_ours

        assert set(outcomes) == set(chosen)
        ours = outcomes[candidates.selected]


@pytest.fixture(scope="module")
def vocabulary(tiny_llama):
    """The native vocabulary of a tiny model."""
    params = native.llama_model_default_params()
    params.vocab_only = True
    model = native.llama_model_load_from_file(str(tiny_llama).encode(), params)
    yield native.llama_model_get_vocab(model)
    native.llama_model_free(model)


def label(vocabulary, token: int) -> bytes:
    buffer = ctypes.create_string_buffer(64)
    count = native.llama_token_to_piece(vocabulary, token, buffer, 64, 0, True)
    return buffer.raw[:count]


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("breakers", [(), ("c",), ("he", "b"), ("ab",)])
def test_dry_agrees_with_llama_cpp(sampler, vocabulary, seed, breakers):
    dice = np.random.default_rng(seed)
    size = native.llama_vocab_n_tokens(vocabulary)
    wanted = [b"a", b"b", b"c", b"t", b"h", b"e", b"th", b"he", b" the"]
    known = [token for token in range(size) if label(vocabulary, token) in wanted]
    allowed, window = int(dice.integers(0, 4)), int(dice.integers(5, 50))
    tokens = dice.choice(known[: 2 + seed % 8], size=40).tolist()
    encoded = [breaker.encode() for breaker in breakers]
    theirs = sampler(
        "dry", vocabulary, 0.8, 1.75, allowed, window,
        (ctypes.c_char_p * len(encoded))(*encoded), len(encoded),
    )  # fmt: skip
    for token in tokens:
        native.llama_sampler_accept(theirs, token)
    sampling = Sampling(
        dry_multiplier=0.8,
        dry_allowed_length=allowed,
        dry_penalty_last_n=window,
        dry_sequence_breakers=breakers,
    )
    ours = DryPenalty(sampling, tokens[:20], lambda token: label(vocabulary, token))
    for token in tokens[20:]:
        ours.accept(token)
    row = np.zeros(size, dtype=np.float32)
    ours.apply(row)

    expected = NativeCandidates(np.zeros(size)).after(theirs)
    assert row == pytest.approx([expected[token] for token in range(size)], rel=1e-5)
