"""Interface of WebSockets to upstreams, independent of the library, and subprotocols (no I/O)."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import parse_qsl, quote, unquote_plus

from llm_backend.errors import InvalidRequest

Message = str | bytes

# Subprotocol by which a browser sends its key for this server, because it cannot set headers.
_KEY_PREFIX = "openai-insecure-api-key."
_REALTIME_PROTOCOL = "realtime"
_BETA_PREFIX = "openai-beta."


@dataclass(frozen=True, kw_only=True)
class CloseReason:
    """Close frame: a status code of RFC 6455 and a reason."""

    code: int
    reason: str = ""


class UpstreamSocket(Protocol):
    """Open WebSocket to an upstream; the caller must call `close`."""

    @property
    def protocol(self) -> str | None:
        """Subprotocol that the upstream chose."""
        ...

    def messages(self) -> AsyncGenerator[Message, None]:
        """Yields the upstream's messages, text as `str`, until it closes."""
        ...

    @property
    def closing(self) -> CloseReason:
        """The upstream's close frame, after `messages` has ended."""
        ...

    async def send(self, message: Message) -> None:
        """Sends one message; waits while the upstream applies backpressure."""
        ...

    async def close(self, closing: CloseReason) -> None:
        """Sends a close frame and closes the connection."""
        ...


def upstream_protocols(protocols: Sequence[str]) -> list[str]:
    """Returns the client's subprotocols without those that carry keys or choose the payer."""
    return [one for one in protocols if one == _REALTIME_PROTOCOL or one.startswith(_BETA_PREFIX)]


def model_of(query: str) -> str | None:
    """Returns the model in a query. Raises `InvalidRequest` for two, because the upstream might
    read the other one."""
    words = parse_qsl(query, keep_blank_values=True)
    if len({model for name, model in words if name.lower() == "model"}) > 1:
        raise InvalidRequest("The query names more than one model.", param="model")
    return dict(words).get("model")


def rename_query_model(query: str, model: str) -> str:
    """Returns the query with another `model`, its other parameters unchanged."""
    words = [word for word in query.split("&") if word]
    renamed = f"model={quote(model, safe='')}"
    return "&".join(
        renamed if unquote_plus(word.partition("=")[0]) == "model" else word for word in words
    )


def with_key(headers: Mapping[str, str], protocols: Sequence[str]) -> Mapping[str, str]:
    """Returns the headers, names in lower case, with the key that came as a subprotocol."""
    keys = [one.removeprefix(_KEY_PREFIX) for one in protocols if one.startswith(_KEY_PREFIX)]
    if not keys or "authorization" in headers:
        return headers
    return {**headers, "authorization": f"Bearer {keys[0]}"}
