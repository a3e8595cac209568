"""Validation of sampling parameters: a value that would fail in the middle of a pass is refused."""

import math

from llm_backend.engine.command_refused import CommandRefused
from llm_backend.engine.messages import Failure, Sampling

_FINITE = ("temperature", "top_p", "min_p", "frequency_penalty", "presence_penalty")
_RANGES: dict[str, tuple[float, float]] = {
    "logprobs": (0, 20),  # as many alternatives as OpenAI returns for a token
    "typical_p": (0, 1),
    "xtc_probability": (0, 1),
    "xtc_threshold": (0, 1),
    "mirostat": (0, 2),  # 0 is off; versions 1 and 2
    "mirostat_tau": (0, 100),  # bits: more than any token's surprise
    "mirostat_eta": (0, 10),  # above 1 it overshoots; far above, its state overflows
    "repeat_penalty": (0.01, math.inf),  # logits are divided by it: none may become infinite
    "repeat_last_n": (0, math.inf),
    "dry_multiplier": (0, 1e6),  # more than any logit; its product with a power must stay finite
    "dry_base": (1, 1e6),  # below 1, longer repetitions would cost less
    "dry_allowed_length": (0, math.inf),
    "dry_penalty_last_n": (0, math.inf),
}
_MAX_BREAKERS = 64
_MAX_BREAKER_BYTES = 40  # llama.cpp's limit; each is searched for after every token


def check_sampling(sampling: Sampling) -> None:
    """Raises `CommandRefused` naming the field."""
    for name in _FINITE:
        if not math.isfinite(getattr(sampling, name)):
            raise CommandRefused(Failure.INVALID, f"{name} must be a finite number.", name)
    for name, (minimum, maximum) in _RANGES.items():
        value = getattr(sampling, name)
        if value is not None and not (minimum <= value <= maximum and value < math.inf):
            is_open = maximum == math.inf
            bounds = f"at least {minimum:g}" if is_open else f"{minimum:g} to {maximum:g}"
            raise CommandRefused(Failure.INVALID, f"{name} is {value}; it must be {bounds}.", name)
    _check_breakers(sampling.dry_sequence_breakers)


def _check_breakers(breakers: tuple[str, ...]) -> None:
    name = "dry_sequence_breakers"
    if len(breakers) > _MAX_BREAKERS:
        raise CommandRefused(Failure.INVALID, f"There may be at most {_MAX_BREAKERS} {name}.", name)
    for breaker in breakers:
        if not 1 <= len(breaker.encode(errors="replace")) <= _MAX_BREAKER_BYTES:
            message = f"Each of {name} must have 1 to {_MAX_BREAKER_BYTES} bytes."
            raise CommandRefused(Failure.INVALID, message, name)
