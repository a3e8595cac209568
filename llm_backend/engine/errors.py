"""Exceptions of an engine that does not answer.

EngineError
├── CommandFailed    this command was refused or given up; the engine goes on
└── EngineDown       the engine process is not running now
    └── EngineStartError   and cannot be started: it has failed, or the engine is closed
"""

from llm_backend.engine.messages import Failure


class EngineError(Exception):
    """An engine does not answer; the message gives the reason and the remedy."""


class CommandFailed(EngineError):
    """The command was refused by its validation, or failed later. `failure` is the kind of reason.
    `field` is the invalid field of the command, if there is one, and `location` a JSON pointer into
    it."""

    def __init__(
        self, failure: Failure, message: str, field: str | None = None, location: str | None = None
    ) -> None:
        super().__init__(message)
        self.failure = failure
        self.field = field
        self.location = location


class EngineDown(EngineError):
    """The engine process is starting, restarting, or died with this command in it. `retry_after_s`
    None means that it will not be started again."""

    def __init__(self, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class EngineStartError(EngineDown):
    """The model cannot be served now: not a model, no memory, or a crash at its first forward
    pass."""
