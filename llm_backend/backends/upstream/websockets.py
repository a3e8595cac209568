"""A WebSocket as the two ends of a relay see it, without the library behind it (no I/O)."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import parse_qsl, quote, unquote_plus

from llm_backend.errors import InvalidRequest

__all__ = [
    "CloseReason",
    "Message",
    "UpstreamSocket",
    "model_of",
    "upstream_protocols",
    "with_key",
    "with_model",
]

Message = str | bytes

# What a browser, which cannot set headers, sends its key in; it is this server's key.
_KEY_PREFIX = "openai-insecure-api-key."
_SPOKEN = "realtime"
_SPOKEN_PREFIX = "openai-beta."


@dataclass(frozen=True, kw_only=True)
class CloseReason:
    """How one end says goodbye: a status code of RFC 6455 and a reason."""

    code: int
    reason: str = ""


class UpstreamSocket(Protocol):
    """An open socket to an upstream; whoever takes it calls `close`."""

    @property
    def protocol(self) -> str | None:
        """The subprotocol that the upstream chose."""
        ...

    def messages(self) -> AsyncGenerator[Message, None]:
        """What the upstream sends, text as `str`, until it closes."""
        ...

    @property
    def closing(self) -> CloseReason:
        """How the upstream ended, once `messages` has."""
        ...

    async def send(self, message: Message) -> None:
        """Sends one message; waits while the upstream does not take it."""
        ...

    async def close(self, closing: CloseReason) -> None:
        """Says goodbye and cuts the connection."""
        ...


def upstream_protocols(protocols: Sequence[str]) -> list[str]:
    """The client's subprotocols that say what is spoken. Others carry keys, or choose who pays."""
    return [one for one in protocols if one == _SPOKEN or one.startswith(_SPOKEN_PREFIX)]


def _key_of(protocols: Sequence[str]) -> str | None:
    """The key among a client's subprotocols."""
    found = [one.removeprefix(_KEY_PREFIX) for one in protocols if one.startswith(_KEY_PREFIX)]
    return found[0] if found else None


def model_of(query: str) -> str | None:
    """The model that a query names. Raises `InvalidRequest` for two, of which the upstream might
    read the other."""
    words = parse_qsl(query, keep_blank_values=True)
    if len({model for name, model in words if name.lower() == "model"}) > 1:
        raise InvalidRequest("The query names more than one model.", param="model")
    return dict(words).get("model")


def with_model(query: str, model: str) -> str:
    """The query with another `model`, its other words as they were."""
    words = [word for word in query.split("&") if word]
    name = f"model={quote(model, safe='')}"
    return "&".join(name if _name_of(word) == "model" else word for word in words)


def _name_of(word: str) -> str:
    """A word's name, as whoever reads the query does, however it is written."""
    return unquote_plus(word.partition("=")[0])


def with_key(headers: Mapping[str, str], protocols: Sequence[str]) -> Mapping[str, str]:
    """The headers, names in lower case, with the key that came as a subprotocol."""
    key = _key_of(protocols)
    if key is None or "authorization" in headers:
        return headers
    return {**headers, "authorization": f"Bearer {key}"}
