"""Messages between the permit server and its clients: lines of JSON."""

from pathlib import Path

import msgspec

__all__ = [
    "PLACES",
    "AcquireCancelled",
    "AcquirePermit",
    "FromKeeper",
    "FromTaker",
    "PermitGranted",
    "PermitTimeout",
    "PermitsScarce",
    "ReleasePermit",
    "from_client",
    "from_server",
    "line",
]

PLACES = Path("places.sock")  # in the folder that is shared


class _PermitMessage(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    pass


class AcquirePermit(_PermitMessage, frozen=True, kw_only=True):
    """Requests a permit for one of the upstreams `among`, for a request of caller `who`, within
    `within_s` seconds."""

    number: int
    who: str
    among: list[str]
    within_s: float


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


FromTaker = AcquirePermit | AcquireCancelled | ReleasePermit
FromKeeper = PermitGranted | PermitTimeout | PermitsScarce

from_client = msgspec.json.Decoder(FromTaker).decode
from_server = msgspec.json.Decoder(FromKeeper).decode


def line(message: FromTaker | FromKeeper) -> bytes:
    """Encodes a message as one line of JSON."""
    return msgspec.json.encode(message) + b"\n"
