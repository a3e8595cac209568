"""What is known of one upstream before it is asked anything (pure)."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase
from urllib.parse import urlsplit

from llm_backend.backends.upstream.passed_headers import never_passes

__all__ = ["WIRES", "UpstreamConfig", "UpstreamKind", "WireProtocol"]

_PATTERN = frozenset("*?[")


class UpstreamKind(StrEnum):
    """How an upstream wants to be addressed: OpenAI's paths and bearer token, or Azure's."""

    OPENAI = "openai"
    AZURE = "azure"


class WireProtocol(StrEnum):
    """By which operation an upstream's models talk."""

    CHAT = "chat"
    RESPONSES = "responses"
    BOTH = "both"


WIRES = {
    "createChatCompletion": WireProtocol.CHAT,
    "createResponse": WireProtocol.RESPONSES,
    "Compactconversation": WireProtocol.RESPONSES,
    "Getinputtokencounts": WireProtocol.RESPONSES,
}
"""What the operations speak that an upstream may not know; all others are asked as they are."""


@dataclass(frozen=True, kw_only=True)
class UpstreamConfig:
    """One upstream. `models` are names or shell patterns; without any it serves every name.

    `connect_timeout_s` is for a connection, `first_byte_timeout_s` (`idle_timeout_s` where None)
    from then to the answer's headers, `idle_timeout_s` between two pieces of the answer, and
    `total_timeout_s`, if given, for all of it. `concurrency` requests are out at most. One that
    `honours_idempotency_key` does a request with such a key once, however often it comes.
    Up to `check_bytes` of a JSON answer are held until it is whole.
    `pass_headers` are names or shell patterns of headers that pass beside the listed ones. Raises
    `ValueError`, one sentence, for a base URL that is none and for a header that never passes.
    """

    name: str = "upstream"
    base_url: str
    api_key: str | None = None
    headers: Sequence[tuple[str, str]] = ()
    pass_headers: Sequence[str] = ()
    kind: UpstreamKind = UpstreamKind.OPENAI
    api_version: str | None = None
    wire: WireProtocol = WireProtocol.BOTH
    models: Sequence[str] = ()
    weight: float = 1
    concurrency: int = 1000
    connect_timeout_s: float = 10
    first_byte_timeout_s: float | None = None
    idle_timeout_s: float = 600
    total_timeout_s: float | None = None
    models_ttl_s: float = 30
    honours_idempotency_key: bool = False
    check_bytes: int = 256 * 1024

    def __post_init__(self) -> None:
        parts = urlsplit(self.base_url)
        if parts.scheme not in {"http", "https"} or not parts.hostname or parts.username:
            raise ValueError("An upstream's base URL must be http(s)://HOST[:PORT][/PATH].")
        for name in self.pass_headers:
            if never_passes(name.lower().encode()):
                raise ValueError(f"`pass_headers` names `{name.lower()}`, which never passes.")

    @property
    def serves_any(self) -> bool:
        """Whether it is asked for every model that no other upstream names."""
        return not self.models

    @property
    def lists_models(self) -> bool:
        """Whether it can be asked which models it has; Azure lists what could be deployed."""
        return self.kind is UpstreamKind.OPENAI

    @property
    def named_models(self) -> list[str]:
        """The models that are named in full, not by a pattern."""
        return [model for model in self.models if not _PATTERN & set(model)]

    def speaks(self, wire: WireProtocol | None) -> bool:
        """Whether it can be asked so."""
        return wire is None or self.wire in (wire, WireProtocol.BOTH)

    def names(self, model: str) -> bool:
        """Whether the settings give it this model, by name or pattern."""
        return any(fnmatchcase(model, pattern) for pattern in self.models)

    def may_list(self, model: str) -> bool:
        """Whether a model of its own list is offered to clients."""
        return self.serves_any or self.names(model)
