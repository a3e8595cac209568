"""A small client of the API for commands: JSON out, JSON or an event stream back."""

import http.client
import json
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from llm_backend.sse import Decoder

__all__ = ["Api", "ApiRequestError"]

_CHUNK = 1 << 14


class ApiRequestError(Exception):
    """The server did not do it, or could not be asked; the message is one sentence."""


class Api:
    """The API at a base URL, `http://127.0.0.1:8000/v1` say; each call has its own connection."""

    def __init__(self, base_url: str, key: str | None, timeout_s: float = 600) -> None:
        parts = urlsplit(base_url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ApiRequestError(
                f"`{base_url}` is no base URL: it is like http://127.0.0.1:8000/v1."
            )
        self.base_url = base_url.rstrip("/")
        self._parts = parts
        self._key = key
        self._timeout_s = timeout_s

    def get(self, path: str) -> Any:
        """The JSON at a path."""
        with self._answer("GET", path, None) as answer:
            return _json(answer.read())

    def events(self, path: str, body: Mapping[str, Any]) -> Generator[Any, None, None]:
        """The JSON of each event of a stream. Closing the iterator closes the connection, so that
        the server stops."""
        with self._answer("POST", path, body) as answer:
            decoder = Decoder()
            while chunk := answer.read1(_CHUNK):
                for event in decoder.feed(chunk):
                    if event.data == "[DONE]":
                        return
                    yield _event_error(_json(event.data))

    @contextmanager
    def _answer(
        self, method: str, path: str, body: Mapping[str, Any] | None
    ) -> Iterator[http.client.HTTPResponse]:
        secure = self._parts.scheme == "https"
        kind = http.client.HTTPSConnection if secure else http.client.HTTPConnection
        host = self._parts.hostname or ""
        connection = kind(host, self._parts.port, timeout=self._timeout_s)
        try:
            data = None if body is None else json.dumps(body).encode()
            connection.request(
                method, self._parts.path.rstrip("/") + path, body=data, headers=self._headers(data)
            )
            answer = connection.getresponse()
            if answer.status != 200:
                raise ApiRequestError(_reason(answer.status, answer.read()))
            yield answer
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise ApiRequestError(f"{self.base_url} cannot be asked: {reason}.") from error
        finally:
            connection.close()

    def _headers(self, data: bytes | None) -> dict[str, str]:
        headers = {"content-type": "application/json"} if data is not None else {}
        return headers | ({"authorization": f"Bearer {self._key}"} if self._key else {})


def _event_error(event: Any) -> Any:
    if isinstance(event, dict) and "error" in event:
        raise ApiRequestError(str(event["error"].get("message")))
    return event


def _reason(status: int, body: bytes) -> str:
    try:
        return f"{json.loads(body)['error']['message']} ({status})"
    except (ValueError, KeyError, TypeError):
        return f"The server answered {status}."


def _json(text: bytes | str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise ApiRequestError(
            "What answers there does not speak this API: its answer is no JSON."
        ) from error
