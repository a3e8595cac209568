"""Header forwarding: allow lists of the request and response headers that pass between clients and
upstreams, and queries without API keys (pure).

The setting `pass_headers` adds names, except hop-by-hop fields (RFC 9110) and those with
credentials such as `authorization` and `cookie`. Unlisted headers do not pass: a client's
credentials and its browser's data about the user are for this server only, and cookies, host names
and policies of an upstream do not apply here.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import translate
from urllib.parse import unquote_plus

_REQUEST_NAMES = frozenset(
    {
        b"accept",
        b"accept-encoding",
        b"anthropic-beta",
        b"content-encoding",  # of a body that is not JSON, which passes undecoded
        b"content-type",
        b"idempotency-key",
        b"if-range",
        b"openai-beta",
        b"openai-safety-identifier",
        b"range",
        b"traceparent",
        b"tracestate",
        b"user-agent",  # some sites reject requests without one
        b"x-client-request-id",
        b"x-request-id",
    }
)
# `x-request-id` and `location` of an upstream are rewritten in `headers.py`.
_ANSWER_NAMES = frozenset(
    {
        b"accept-ranges",
        b"cache-control",
        b"content-disposition",
        b"content-encoding",
        b"content-language",
        b"content-length",
        b"content-range",
        b"content-type",
        b"etag",
        b"last-modified",
        b"retry-after",
        b"retry-after-ms",
        b"x-accel-buffering",  # for a proxy in front of this server
        b"x-should-retry",
    }
)
_ANSWER_PREFIXES = (b"openai-", b"x-ratelimit-")

# `pass_headers` may not name these; some of them are in the lists above, and pass by those.
_NOT_ADDABLE = frozenset(
    {
        b"alt-svc",
        b"anthropic-api-key",
        b"api-key",
        b"authorization",
        b"clear-site-data",
        b"connection",
        b"content-length",
        b"cookie",
        b"date",
        b"expect",
        b"forwarded",
        b"host",
        b"keep-alive",
        b"location",
        b"origin",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"referer",
        b"refresh",
        b"server",
        b"set-cookie",
        b"strict-transport-security",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
        b"via",
        b"www-authenticate",
        b"x-api-key",
        b"x-goog-api-key",
        b"x-real-ip",
        b"x-sendfile",
    }
)
_NOT_ADDABLE_PREFIXES = (
    b"access-control-",
    b"sec-",
    b"x-accel-",
    b"x-forwarded-",
    b"x-llm-backend-",
)
# Names of query parameters by which servers take keys; none is a parameter of the document.
_CREDENTIALS = frozenset(
    {
        "access_token",
        "api-key",
        "api_key",
        "apikey",
        "auth_token",
        "authorization",
        "key",
        "ocp-apim-subscription-key",
        "password",
        "subscription-key",
        "token",
        "x-api-key",
        "x-goog-api-key",
    }
)
# These headers choose the operator's account that pays. They never pass in answers, and in requests
# only if the settings add them.
_ACCOUNT_HEADERS = frozenset({b"openai-organization", b"openai-project"})


@dataclass(frozen=True, kw_only=True)
class HeaderList:
    """Allow list: names in lower case, prefixes of names, and `added` patterns of the settings;
    headers in `dropped` do not pass by a prefix or a pattern."""

    names: frozenset[bytes]
    prefixes: tuple[bytes, ...] = ()
    added: re.Pattern[bytes] | None = None
    dropped: frozenset[bytes] = frozenset()

    @property
    def has_more_than_names(self) -> bool:
        """True if a header may pass that is not among the names."""
        return bool(self.prefixes) or self.added is not None

    def passes(self, name: bytes) -> bool:
        """Returns True if a header of this name, in lower case, passes."""
        if name in self.names:
            return True
        if name in self.dropped:
            return False
        return name.startswith(self.prefixes) or self._is_added(name)

    def _is_added(self, name: bytes) -> bool:
        if self.added is None or cannot_be_added(name):
            return False
        return self.added.fullmatch(name) is not None


def cannot_be_added(name: bytes) -> bool:
    """Returns True if no setting can add a header of this name, in lower case, to those that
    pass."""
    return name in _NOT_ADDABLE or name.startswith(_NOT_ADDABLE_PREFIXES)


def without_credentials(query: str) -> str:
    """Returns a query without the parameters that carry keys for this server; the others are
    unchanged."""
    words = query.split("&")
    passed = [word for word in words if not _has_credential(word)]
    return query if len(passed) == len(words) else "&".join(passed)


def _has_credential(word: str) -> bool:
    """True for a parameter with a key; some servers split at `;`, too."""
    names = (part.partition("=")[0] for part in word.split(";"))
    return any(unquote_plus(name).strip().lower() in _CREDENTIALS for name in names)


def request_allow_list(added: Iterable[str] = ()) -> HeaderList:
    """Returns the allow list of requests; `added` are names or shell patterns, in any case."""
    return HeaderList(names=_REQUEST_NAMES, added=_pattern(added))


def answer_allow_list(added: Iterable[str] = ()) -> HeaderList:
    """Returns the allow list of answers; `added` are names or shell patterns, in any case."""
    return HeaderList(
        names=_ANSWER_NAMES,
        prefixes=_ANSWER_PREFIXES,
        added=_pattern(added),
        dropped=_ACCOUNT_HEADERS,
    )


def _pattern(globs: Iterable[str]) -> re.Pattern[bytes] | None:
    patterns = [translate(glob.lower()) for glob in globs]
    return re.compile("|".join(patterns).encode()) if patterns else None
