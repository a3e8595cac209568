"""Who is told how an upstream is doing."""

from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["Watch"]


def _nobody(_number: float = 0) -> None:
    """Nobody wants to know."""


@dataclass(frozen=True, kw_only=True)
class Watch:
    """Is told by how many the requests that are out become more or fewer, that one has failed, and
    1 or 0 when the upstream is asked again or for a while not."""

    outstanding: Callable[[float], None] = _nobody
    failed: Callable[[], None] = _nobody
    is_up: Callable[[float], None] = _nobody
