"""The compiled sampling step beside numpy's, which is the rule."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import hatch_build
from llm_backend.engine.messages import Sampling
from llm_backend.engine.sampling import NoChoice, Sampler
from llm_backend.engine.sampling.filters import REJECTIONS_LIMIT
from llm_backend.engine.sampling.native_nucleus import LIBRARY, NativeNucleus

pytestmark = pytest.mark.skipif(not shutil.which("cc"), reason="there is no C compiler")

_ROUNDING = 1e-6  # of sums of some thousand float32


@pytest.fixture(scope="module", autouse=True)
def _compiled() -> None:
    """A source tree that is used without being installed has none yet."""
    if not LIBRARY.exists():
        hatch_build.compile_nucleus(LIBRARY.parent)
        NativeNucleus.is_available.cache_clear()
    if not NativeNucleus.is_available():
        pytest.skip("this processor is older than what it is compiled for")


def sampler(sampling: Sampling) -> Sampler:
    return Sampler(sampling, index=0, prompt=(), token_bytes=bytes)


def by_numpy(sampling: Sampling) -> Sampler:
    made = sampler(sampling)
    made._native_nucleus = None
    return made


def logits(size: int, spread: float, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    row = (rng.standard_normal(size) * spread).astype(np.float32)
    row[rng.random(size) < 0.2] = -np.inf
    row[rng.integers(size)] = spread
    return row


def is_left_to_rounding(row: np.ndarray, sampling: Sampling) -> bool:
    """True if a random number of five choices is next to the border of two tokens, or a token next
    to the border of the nucleus: float32 sums in another order fall on the other side."""
    weights = np.exp((row.astype(np.float64) - row.max()) / sampling.temperature)
    shares = np.sort(weights / weights.sum())[::-1]
    borders = np.cumsum(weights / weights.sum())
    numbers = sampler(sampling)._rng.random(5 * (REJECTIONS_LIMIT + 1))
    after = np.searchsorted(borders, numbers).clip(max=len(borders) - 1)
    nearest = [np.abs(borders[after - step] - numbers).min() for step in (0, 1)]
    nearest += [np.abs(np.cumsum(shares) - sampling.top_p).min()]
    return min(nearest) < _ROUNDING


@given(
    size=st.integers(1, 3000),
    spread=st.sampled_from([0.01, 1.0, 5.0, 80.0]),
    seed=st.integers(0, 2**32 - 1),
    temperature=st.sampled_from([0.01, 0.3, 0.8, 1.0, 2.0]),
    top_p=st.sampled_from([0.0, 0.3, 0.95, 1.0]),
    min_p=st.sampled_from([0.0, 0.05, 1.0]),
)
def test_native_nucleus_samples_the_same_tokens_as_numpy(
    size: int, spread: float, seed: int, temperature: float, top_p: float, min_p: float
):
    row = logits(size, spread, seed)
    parameters = Sampling(temperature=temperature, top_p=top_p, min_p=min_p, seed=seed)
    ours, rule = sampler(parameters), by_numpy(parameters)
    assume(not is_left_to_rounding(row, parameters))

    assert ours._native_nucleus is not None
    assert [ours.choose(row).token for _ in range(5)] == [rule.choose(row).token for _ in range(5)]


def test_a_sample_on_the_border_of_two_tokens_is_left_to_rounding():
    """Its tenth random number lies 3e-8 beside the border of token 2520, by numpy within it."""
    parameters = Sampling(temperature=2.0, top_p=0.3, min_p=0.0, seed=2799)

    assert is_left_to_rounding(logits(2799, 1.0, 2799), parameters)


@pytest.mark.parametrize("index", [0, 3, 40, 99])
@pytest.mark.parametrize("odd", [np.nan, np.inf])
def test_native_nucleus_raises_for_a_row_that_is_not_finite(index: int, odd: float):
    row = np.zeros(100, dtype=np.float32)
    row[index] = odd

    with pytest.raises(NoChoice):
        sampler(Sampling(temperature=1.0)).choose(row)


def test_native_nucleus_never_samples_impossible_tokens():
    row = np.full(1000, -np.inf, dtype=np.float32)
    row[[7, 998]] = 0.0
    chooser = sampler(Sampling(temperature=1.0, seed=3))

    assert {chooser.choose(row).token for _ in range(50)} == {7, 998}


def test_native_nucleus_supports_vocabularies_of_several_sizes():
    small, large = (sampler(Sampling(temperature=1.0, seed=1)) for _ in range(2))
    few, many = np.zeros(10, dtype=np.float32), np.zeros(5000, dtype=np.float32)

    sampled = [(small.choose(few).token, large.choose(many).token) for _ in range(50)]

    assert max(one for one, _ in sampled) < 10
    assert max(other for _, other in sampled) > 10


def test_sampler_samples_in_numpy_without_a_compiler(tmp_path: Path, monkeypatch, capsys):
    (tmp_path / "nucleus.c").write_text("int x;")
    monkeypatch.setenv("CC", "no-such-compiler")

    assert hatch_build.compile_nucleus(tmp_path) is False
    assert "numpy draws tokens" in capsys.readouterr().err
    assert not (tmp_path / "libnucleus.so").exists()
