"""Why a command is not taken."""

from llm_backend.engine.messages import Failure

__all__ = ["Refused"]


class Refused(Exception):
    """The command is not taken; `failure` says why, the message what to do about it, and `field`
    which of the command's fields is to blame if it is one.
    """

    def __init__(self, failure: Failure, message: str, field: str | None = None) -> None:
        super().__init__(message)
        self.failure = failure
        self.field = field
