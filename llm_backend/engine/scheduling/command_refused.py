"""Why a command is not taken."""

from llm_backend.engine.messages import Embed, Failure, Generate, ModelKind, Rank

__all__ = ["CommandRefused", "unsupported_command"]

_DOES = {
    ModelKind.CHAT: "generates text",
    ModelKind.EMBEDDING: "makes embeddings",
    ModelKind.RERANK: "ranks documents",
}
_VERBS = {Generate: "generate text", Embed: "embed", Rank: "rank documents"}


class CommandRefused(Exception):
    """The command is not taken; `failure` says why, the message what to do about it, and `field`
    which of the command's fields is to blame if it is one.
    """

    def __init__(self, failure: Failure, message: str, field: str | None = None) -> None:
        super().__init__(message)
        self.failure = failure
        self.field = field


def unsupported_command(kind: ModelKind, command: Generate | Embed | Rank) -> CommandRefused:
    """A model of this kind does not answer such commands."""
    message = f"This model {_DOES[kind]}; it cannot {_VERBS[type(command)]}."
    return CommandRefused(Failure.UNSUPPORTED, message)
