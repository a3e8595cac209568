"""Headers of relayed requests and answers (pure)."""

import re
from collections.abc import Iterable, Iterator, Sequence

from llm_backend.backends.upstream.passed_headers import (
    HeaderList,
    answer_allow_list,
    request_allow_list,
)
from llm_backend.errors import InvalidRequest, UpstreamFailed

Headers = Iterable[tuple[bytes, bytes]]
HeaderPairs = Sequence[tuple[bytes, bytes]]

# Header of the upstream's request id: in its answer, and in the answer to the client, whose
# `x-request-id` is this server's own.
_UPSTREAM_REQUEST_ID = (b"x-request-id", b"x-upstream-request-id")
_REWRITTEN = (b"location", b"x-request-id")
_PATH = re.compile(rb"/(?![/\\])[!-~]*")
_CREATED = 201
_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_BODILESS_STATUSES = frozenset({204, 304})
_REQUESTS = request_allow_list()
_ANSWERS = answer_allow_list()


def request_headers(
    headers: Headers,
    *,
    own: HeaderPairs = (),
    listed: HeaderList = _REQUESTS,
) -> HeaderPairs:
    """Returns the headers for the upstream: the client's listed ones, and this server's `own`. The
    latter have names in lower case, and replace those of the client."""
    own_names = {name for name, _ in own}
    passed = _end_to_end([(name.lower(), value) for name, value in headers], listed)
    return [*(pair for pair in passed if pair[0] not in own_names), *own]


def as_text(headers: HeaderPairs) -> list[tuple[str, str]]:
    """Returns the headers as text, for a WebSocket. Raises `InvalidRequest` for a value that is not
    UTF-8, which the HTTP client cannot send there."""
    return [(name.decode("latin-1"), _text(name, value)) for name, value in headers]


def answer_headers(
    headers: Headers, *, status: int, listed: HeaderList = _ANSWERS
) -> tuple[tuple[bytes, bytes], ...]:
    """Returns the headers for the client: the listed ones, the upstream's request id as
    `x-upstream-request-id`, and the `Location` of a new object if it is a path.

    Raises `UpstreamFailed` for a status or a header that is not valid in HTTP.
    """
    if not 200 <= status <= 599:
        raise UpstreamFailed("The upstream answered with an invalid HTTP status.")
    pairs = [(name.lower(), value) for name, value in headers]
    passed = _end_to_end(pairs, listed)
    for name, value in passed:
        if _CONTROL.search(value) or not (name in listed.names or _NAME.fullmatch(name)):
            raise UpstreamFailed("The upstream answered with an invalid header.")
    names = {name for name, _ in pairs}
    if b"transfer-encoding" in names or status in _BODILESS_STATUSES:
        passed = [pair for pair in passed if pair[0] != b"content-length"]
    if not names.isdisjoint(_REWRITTEN):
        passed += _rewritten_headers(pairs, status)
    return tuple(passed)


def _rewritten_headers(pairs: HeaderPairs, status: int) -> Iterator[tuple[bytes, bytes]]:
    upstream_name, own_name = _UPSTREAM_REQUEST_ID
    for name, value in pairs:
        if name == upstream_name and not _CONTROL.search(value):
            yield own_name, value
        elif name == b"location" and status == _CREATED and _PATH.fullmatch(value):
            yield name, value


def _end_to_end(lowered: HeaderPairs, listed: HeaderList) -> list[tuple[bytes, bytes]]:
    """Returns the listed headers, except hop-by-hop ones: the fields that `Connection` nominates
    (RFC 9110, 7.6.1)."""
    names = listed.names
    if listed.has_more_than_names:
        passed = [pair for pair in lowered if pair[0] in names or listed.passes(pair[0])]
    else:
        passed = [pair for pair in lowered if pair[0] in names]
    nominating = [value for name, value in lowered if name == b"connection"]
    if not nominating:
        return passed
    nominated = {word.strip().lower() for value in nominating for word in value.split(b",")}
    return [pair for pair in passed if pair[0] not in nominated]


def _text(name: bytes, value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        raise InvalidRequest(
            f"The header `{name.decode('latin-1')}` is not UTF-8 and cannot be relayed.",
            param=name.decode("latin-1"),
        ) from error
