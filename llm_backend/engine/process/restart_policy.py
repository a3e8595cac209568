"""Restart policy: delay before a worker that has died is started again. Pure: the time for which
it was ready is an argument.

The first deaths in a row are followed by short, growing delays. After `restart_limit` of them the
engine pauses: one start after each pause, and each pause is twice as long as the one before, up to
minutes. Once a worker has been ready for a while, the count starts anew.
"""

from dataclasses import dataclass

from llm_backend.backoff import backoff_delay_s
from llm_backend.engine.config import EngineConfig


@dataclass(frozen=True, kw_only=True)
class Restart:
    """Delay of the next start in seconds. `is_pause`: until then the engine counts as failed, and
    refuses requests."""

    delay_s: float
    is_pause: bool


class RestartPolicy:
    """Counts deaths in a row of one engine's workers."""

    def __init__(self, config: EngineConfig) -> None:
        self._config = config
        self._deaths = 0
        self._pauses = 0

    def next_restart(self, *, ready_s: float, was_ready: bool, cannot_start: bool) -> Restart:
        """Returns the delay of the next start after a death. `cannot_start`: no worker has been
        ready yet, and another one would fail in the same way. `ready_s` does not include the time
        for loading the model."""
        config = self._config
        if was_ready and ready_s >= config.restart_reset_s:
            self._deaths = self._pauses = 0
        self._deaths += 1
        if self._deaths <= config.restart_limit and not cannot_start:
            delay_s = backoff_delay_s(
                config.restart_delay_s, self._deaths, config.restart_delay_limit_s
            )
            return Restart(delay_s=delay_s, is_pause=False)
        self._pauses += 1
        pause_s = backoff_delay_s(
            config.restart_pause_s, self._pauses, config.restart_pause_limit_s
        )
        return Restart(delay_s=pause_s, is_pause=True)
