"""Mirostat keeps the surprise it is asked for."""

import numpy as np
import pytest

from llm_backend.engine.messages import Sampling
from llm_backend.engine.sampling import Sampler
from llm_backend.engine.sampling.mirostat import Mirostat


def surprises(version: int, tau: float, times: int = 3000) -> np.ndarray:
    """In bits, of tokens drawn from a distribution like that of a language."""
    shares = 1 / np.arange(1, 2001)
    shares /= shares.sum()
    sampling = Sampling(mirostat=version, mirostat_tau=tau, mirostat_eta=0.1, seed=5)
    chooser = Sampler(sampling, index=0, prompt=(), token_bytes=bytes)
    row = np.log(shares).astype(np.float32)
    return -np.log2([shares[chooser.choose(row).token] for _ in range(times)])


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("tau", [3.0, 5.0])
def test_mirostat_surprise_follows_the_target(version, tau):
    calm, wild = surprises(version, 2.0)[500:].mean(), surprises(version, tau)[500:].mean()

    assert calm < wild
    assert abs(wild - tau) < 2.5  # what is left out is counted as if it were not there


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize(
    "logits",
    [[1.0], [2.0, 2.0], [0.0] * 300, [5.0] + [-np.inf] * 9, [60.0, 0.0, 0.0], [1e30, 0.0]],
)
def test_mirostat_draws_from_any_distribution(version, logits):
    row = np.array(logits, dtype=np.float32)
    chooser = Sampler(Sampling(mirostat=version, seed=1), index=0, prompt=(), token_bytes=bytes)

    assert all(np.isfinite(row[chooser.choose(row).token]) for _ in range(50))


@pytest.mark.parametrize("version", [1, 2])
def test_mirostat_state_stays_finite_for_extreme_parameters(version):
    sampling = Sampling(mirostat=version, mirostat_tau=100, mirostat_eta=10)
    state = Mirostat(sampling)
    weights = np.array([1, 0.5, 1e-30], dtype=np.float32)
    for _ in range(2000):
        state.sample(weights, 0.3)

    assert np.isfinite(state._mu)
