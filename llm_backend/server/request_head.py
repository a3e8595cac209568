"""Checks a request's target and `Host`, by RFC 9112, 3.2 (pure)."""

import re
from collections.abc import Sequence

_HOST = re.compile(rb"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~-]+)(?::[0-9]{0,5})?")
_ABSOLUTE = re.compile(rb"(https?)://([^/?#]*)", re.IGNORECASE)
_DEFAULT_PORTS = {b"http": b"80", b"https": b"443"}


def fault_of_head(
    version: str, target: bytes, headers: Sequence[tuple[bytes, bytes]]
) -> str | None:
    """Returns a sentence for the client; None for a valid head. Header names are in lower case.

    The application and a proxy in front of it must see the same single `Host`. A second one, or
    a target with another host, could mean something else to each of them.
    """
    hosts = [value for name, value in headers if name == b"host"]
    if len(hosts) > 1:
        return "The request has more than one `Host` header."
    if not hosts and version == "1.1":
        return "A request of HTTP/1.1 has a `Host` header."
    if hosts and not _HOST.fullmatch(hosts[0]):
        return "The `Host` header is not a host with or without a port."
    if target.startswith(b"/") or target == b"*":
        return None
    absolute = _ABSOLUTE.match(target)
    if absolute is None:
        return "The request's target is neither a path nor an http or https URL."
    scheme, authority = (part.lower() for part in absolute.groups())
    if not hosts or _site(scheme, authority) != _site(scheme, hosts[0].lower()):
        return "The request's target names another host than its `Host` header."
    return None


def _site(scheme: bytes, authority: bytes) -> tuple[bytes, bytes]:
    """Returns host and port, by default the port of the scheme."""
    host, colon, port = authority.rpartition(b":")
    if not colon or authority.endswith(b"]"):
        host, port = authority, b""
    return host, port or _DEFAULT_PORTS[scheme]
