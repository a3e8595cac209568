"""Settings of one upstream (pure)."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase
from urllib.parse import urlsplit

from llm_backend.backends.upstream.passed_headers import cannot_be_added

CONCURRENCY = 1000
"""Requests that an upstream gets at the same time, if its settings do not say."""
_PATTERN = frozenset("*?[")


class UpstreamKind(StrEnum):
    """Address and authentication style of an upstream: OpenAI's, Azure's, Anthropic's, or an image
    server's (`/sdapi/v1`)."""

    OPENAI = "openai"
    AZURE = "azure"
    ANTHROPIC = "anthropic"
    SDAPI = "sdapi"


class WireProtocol(StrEnum):
    """Protocol of a client's request or of an upstream; OLLAMA is a client's only, BOTH an
    upstream's only."""

    CHAT = "chat"
    RESPONSES = "responses"
    BOTH = "both"  # chat completions and responses, not messages
    MESSAGES = "messages"  # Anthropic's
    OLLAMA = "ollama"  # bridged to the others, because no upstream speaks it


WIRES = {
    "createChatCompletion": WireProtocol.CHAT,
    "createResponse": WireProtocol.RESPONSES,
    "Compactconversation": WireProtocol.RESPONSES,
    "Getinputtokencounts": WireProtocol.RESPONSES,
    "createAnthropicMessage": WireProtocol.MESSAGES,
    "countAnthropicMessageTokens": WireProtocol.MESSAGES,
    "createOllamaChat": WireProtocol.OLLAMA,
    "createOllamaCompletion": WireProtocol.OLLAMA,
}
"""Wire protocols of the operations that an upstream may lack; all others are relayed unchanged."""


@dataclass(frozen=True, kw_only=True)
class UpstreamConfig:
    """Settings of one upstream. `models` are names or shell patterns; if empty it serves any model.

    `concurrency` limits outstanding requests. `connect_timeout_s` limits the wait for a permit, and
    then connecting. `first_byte_timeout_s` (None: `idle_timeout_s`) limits the time in which the
    upstream must accept a piece of the body, and from the end of the body to the answer's headers.
    `idle_timeout_s` limits the gap between two pieces of the answer. `total_timeout_s` limits the
    whole exchange, if given. `honours_idempotency_key`: the upstream processes a request with such
    a key only once. Up to `check_bytes` of a JSON answer are buffered for validation.
    `pass_headers` are names or shell patterns of headers passed besides the allow list. Raises
    `ValueError`, one sentence, for an invalid base URL and for a header that never passes."""

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
    concurrency: int = CONCURRENCY
    connect_timeout_s: float = 10
    first_byte_timeout_s: float | None = None
    idle_timeout_s: float = 600
    total_timeout_s: float | None = None
    models_ttl_s: float = 30
    honours_idempotency_key: bool = False
    check_bytes: int = 256 * 1024

    def __post_init__(self) -> None:
        if not _is_base_url(self.base_url):
            raise ValueError("An upstream's base URL must be http(s)://HOST[:PORT][/PATH].")
        for name in self.pass_headers:
            if cannot_be_added(name.lower().encode()):
                raise ValueError(f"`pass_headers` names `{name.lower()}`, which never passes.")

    @property
    def serves_any(self) -> bool:
        """True if it serves every model that no other upstream names."""
        return not self.models

    @property
    def is_image_server(self) -> bool:
        """True if it makes images and answers nothing else."""
        return self.kind is UpstreamKind.SDAPI

    @property
    def lists_models(self) -> bool:
        """True if it lists the models that it serves; Azure lists models that could be deployed."""
        return self.kind is not UpstreamKind.AZURE

    @property
    def named_models(self) -> list[str]:
        """Models that are named in full, not by a pattern."""
        return [model for model in self.models if not _PATTERN & set(model)]

    def speaks(self, wire: WireProtocol | None) -> bool:
        """Returns True if it supports this wire protocol (None: any)."""
        if wire in (WireProtocol.CHAT, WireProtocol.RESPONSES) and self.wire is WireProtocol.BOTH:
            return True
        return wire is None or self.wire is wire

    @property
    def answer_timeout_s(self) -> float:
        """Seconds until an answer must begin."""
        return self.first_byte_timeout_s or self.idle_timeout_s

    def matches(self, model: str) -> bool:
        """Returns True if the settings assign it this model, by name or pattern."""
        return any(fnmatchcase(model, pattern) for pattern in self.models)

    def may_list(self, model: str) -> bool:
        """Returns True if a model that the upstream lists is shown to clients."""
        return self.serves_any or self.matches(model)


def _is_base_url(url: str) -> bool:
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 # raises for one that is no number, or too large
    except ValueError:
        return False
    return parts.scheme in {"http", "https"} and bool(parts.hostname) and not parts.username
