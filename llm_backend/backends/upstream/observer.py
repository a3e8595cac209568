"""Upstream observer: callbacks for the metrics of an upstream."""

from collections.abc import Callable
from dataclasses import dataclass


def _ignore(_number: float = 0) -> None:
    """Default callback, which ignores the number."""


@dataclass(frozen=True, kw_only=True)
class UpstreamObserver:
    """Callbacks: change of the number of outstanding requests, a failed request, and 1 or 0 when
    the upstream returns from or enters an ejection."""

    add_outstanding: Callable[[float], None] = _ignore
    count_failure: Callable[[], None] = _ignore
    record_up: Callable[[float], None] = _ignore
