"""Messages between the permit server and its clients: lines of JSON."""

from pathlib import Path

import msgspec

from llm_backend.ipc import Channel

SOCKET = Path("permits.sock")  # in the folder that is shared
_LIMIT_BYTES = 1 << 20  # some 10,000 messages: only a stuck process leaves so many unread


class _PermitMessage(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    pass


class AcquirePermit(_PermitMessage, frozen=True, kw_only=True):
    """Requests a permit for one of these upstreams, for a request with this fairness key, within
    `timeout_s` seconds."""

    number: int
    fairness_key: str
    upstreams: list[str]
    timeout_s: float


class AcquireCancelled(_PermitMessage, frozen=True, kw_only=True):
    """Cancels the `AcquirePermit` with this number."""

    number: int


class ReleasePermit(_PermitMessage, frozen=True, kw_only=True):
    """Releases `count` permits for an upstream."""

    upstream: str
    count: int


class PermitGranted(_PermitMessage, frozen=True, kw_only=True):
    """Grants `count` permits for an upstream: one for the request, the others for later ones."""

    number: int
    upstream: str
    count: int


class PermitTimeout(_PermitMessage, frozen=True, kw_only=True):
    """No permit became free in time."""

    number: int


class PermitsScarce(_PermitMessage, frozen=True, kw_only=True):
    """The upstreams for which requests wait: clients release all spare permits for these."""

    upstreams: list[str]


PermitClientMessage = AcquirePermit | AcquireCancelled | ReleasePermit
PermitServerMessage = PermitGranted | PermitTimeout | PermitsScarce

SERVER_CHANNEL = Channel(
    decode=msgspec.json.Decoder(PermitClientMessage).decode,
    peer="api_process",
    limit_bytes=_LIMIT_BYTES,
)
CLIENT_CHANNEL = Channel(
    decode=msgspec.json.Decoder(PermitServerMessage).decode,
    peer="permit_server",
    limit_bytes=_LIMIT_BYTES,
)
