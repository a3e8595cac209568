"""What the keeper of the places at upstreams and the processes that take them say to each other:
lines of JSON."""

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
    """A request of this caller's needs a place at one of these, within so many seconds."""

    number: int
    who: str
    among: list[str]
    within_s: float


class AcquireCancelled(_PermitMessage, frozen=True, kw_only=True):
    """That request needs it no more."""

    number: int


class ReleasePermit(_PermitMessage, frozen=True, kw_only=True):
    """So many places at an upstream are given back."""

    upstream: str
    count: int


class PermitGranted(_PermitMessage, frozen=True, kw_only=True):
    """So many places at this upstream: one for the request, the others for those that follow."""

    number: int
    upstream: str
    count: int


class PermitTimeout(_PermitMessage, frozen=True, kw_only=True):
    """There was none in time."""

    number: int


class PermitsScarce(_PermitMessage, frozen=True, kw_only=True):
    """Somebody waits for places at these upstreams, and at no others: none are kept for later."""

    upstreams: list[str]


FromTaker = AcquirePermit | AcquireCancelled | ReleasePermit
FromKeeper = PermitGranted | PermitTimeout | PermitsScarce

from_client = msgspec.json.Decoder(FromTaker).decode
from_server = msgspec.json.Decoder(FromKeeper).decode


def line(message: FromTaker | FromKeeper) -> bytes:
    """A message as it is sent."""
    return msgspec.json.encode(message) + b"\n"
