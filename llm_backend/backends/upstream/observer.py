"""Who is told how an upstream is doing."""

from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["UpstreamObserver"]


def _ignore(_number: float = 0) -> None:
    """Nobody wants to know."""


@dataclass(frozen=True, kw_only=True)
class UpstreamObserver:
    """Is told by how many the requests that are out become more or fewer, that one has failed, and
    1 or 0 when the upstream is asked again or for a while not."""

    outstanding: Callable[[float], None] = _ignore
    failed: Callable[[], None] = _ignore
    is_up: Callable[[float], None] = _ignore
