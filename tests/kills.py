"""Kills of workers while they compute."""

import os
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import httpx

from tests.patience import wait_until
from tests.serving import Served, children_of

__all__ = ["kill_at_work", "sleeps", "transcribe_through_a_kill"]


def transcribe_through_a_kill(
    served: Served, form: Sequence[tuple[str, Any]], *, events: int = 8
) -> bytes:
    """Returns the stream of a long recording's transcript, whose workers are killed after the first
    `events`, in the midst of a window: the decoder has more than the server takes."""
    url = f"{served.base_url}/audio/transcriptions"
    with httpx.stream(
        "POST", url, files=[*form, ("stream", (None, "true"))], timeout=120
    ) as answer:
        pieces, told = answer.iter_bytes(), b""
        while told.count(b"data: ") < events:
            told += next(pieces)
        (decoder,) = children_of(served.process.pid, b"audio_reader")
        kill_at_work(served, lambda: sleeps(decoder))
        return told + b"".join(pieces)


def kill_at_work(served: Served, is_asked: Callable[[], bool]) -> None:
    """Kills the workers, which are stopped before, when the server has asked them for more."""
    killed = served.workers()
    for worker in killed:
        os.kill(worker, signal.SIGSTOP)
    wait_until(is_asked)
    for worker in killed:
        os.kill(worker, signal.SIGKILL)
    wait_until(lambda: not set(killed) & set(served.workers()))


def sleeps(pid: int) -> bool:
    """True if a process waits for something and takes no processor time."""

    def state() -> list[str]:
        """Its state, and what follows: its processor time in ticks is there."""
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()

    before = state()
    time.sleep(0.1)
    return before[0] == "S" and state()[:14] == before[:14]
