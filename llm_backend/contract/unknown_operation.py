"""Requests for paths under `/v1` outside of the document: relayed, or refused with a reason."""

import re
from urllib.parse import unquote

from starlette.types import Scope

from llm_backend.contract.operations import Operation
from llm_backend.errors import NotFound

UNKNOWN = Operation(
    operation_id="unknownOperation",
    method="",
    path="",
    tag="Unknown",
    summary="An operation that the document does not have",
    answered_by="upstream",
    controller=None,
    is_public=False,
    administers=False,
)
"""Placeholder operation for a path that only an upstream may have."""

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"})
_PREFIX, _DOUBLED = "/v1/", "/v1/v1/"
_OLLAMA, _SOCKET = "/api/", "/v1/realtime/"
# An upstream would run these with this server's own key, for any client.
_ADMINISTERED = (
    "/v1/organization/", "/v1/projects/", "/v1/safety/", "/v1/fine_tuning/checkpoints/",
)  # fmt: skip
_SHOWN_CHARACTERS = 256
_SLASHES = re.compile(r"[/\\]+")


class UnknownPaths:
    """Decides which unknown paths are relayed. `no_relay_reason` is the reason if none are."""

    def __init__(self, no_relay_reason: str | None) -> None:
        self._no_relay_reason = no_relay_reason

    def operation(self, scope: Scope) -> Operation | None:
        """Returns `UNKNOWN` for an unrouted request to be relayed; None if it is refused."""
        path = _plain(scope["state"]["sent_path"])
        is_relayed = self._no_relay_reason is None and scope["method"] in _METHODS
        is_unknown = path.startswith(_PREFIX) and not path.startswith((_DOUBLED, *_ADMINISTERED))
        return UNKNOWN if is_relayed and is_unknown else None

    def error(self, scope: Scope) -> NotFound:
        """Returns the 404 for a refused request, with the path as it was sent."""
        path = scope["state"]["sent_path"]
        message = f"There is no {scope['method']} {path[:_SHOWN_CHARACTERS]} here"
        return NotFound(f"{message}{self._reason(path)}.", code="unknown_url")

    def _reason(self, sent_path: str) -> str:
        path = _plain(sent_path)
        if path.startswith(_DOUBLED):
            return (
                ": the path begins with `/v1` twice, as where a client adds `/v1` to a base URL "
                "that ends with it already"
            )
        if path.startswith(_OLLAMA):
            return "; this part of Ollama's API is not answered"
        if path == _SOCKET:
            return ": it is a WebSocket, and this request opens none"
        if not path.startswith(_PREFIX):
            return "; the API's paths begin with /v1/"
        if path.startswith(_ADMINISTERED):
            return ": no such operation is known, and what administers is not relayed"
        if self._no_relay_reason is None:
            return ": no such operation is known, and this method is not relayed"
        return f": no such operation is known, and {self._no_relay_reason}"


def _plain(path: str) -> str:
    """Normalizes a path as an upstream may read it: decoded, lower case, slashes collapsed."""
    return _SLASHES.sub("/", unquote(unquote(path)).lower() + "/")
