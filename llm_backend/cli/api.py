"""HTTP client of the commands: sends JSON; reads JSON, bytes or event streams."""

import http.client
import json
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

from llm_backend.json_types import JsonMapping
from llm_backend.sse import Decoder

_CHUNK = 1 << 14

KEY_HINT = " Give the key by --api-key or OPENAI_API_KEY."


class ApiRequestError(Exception):
    """A request failed or could not be sent; the message is one sentence. `status` is that of the
    answer, if it refuses the request."""

    def __init__(self, message: str, *, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class Api:
    """The API at a base URL like `http://127.0.0.1:8000/v1`; each call opens a connection.
    `key_hint` is added to the error of a missing or wrong key; `headers` are sent as well."""

    def __init__(
        self,
        base_url: str,
        key: str | None,
        timeout_s: float = 600,
        *,
        key_hint: str = KEY_HINT,
        headers: Iterable[tuple[bytes, bytes]] = (),
    ) -> None:
        key = key and key.strip()
        if key and not (key.isascii() and key.isprintable()):
            raise ApiRequestError("The API key holds a character that no header can hold.")
        try:
            parts = urlsplit(base_url)
            self._port = parts.port
        except ValueError:
            raise _no_base_url(base_url) from None
        if parts.scheme not in ("http", "https") or not parts.hostname or not parts.path.isascii():
            raise _no_base_url(base_url)
        self.base_url = base_url.rstrip("/")
        self._parts = parts
        self._key = key
        self._timeout_s = timeout_s
        self._key_hint = key_hint
        self._more_headers = {name.decode(): value for name, value in headers}

    def get(self, path: str) -> Any:
        """Returns the JSON at a path."""
        with self._send("GET", path, None) as answer:
            return _json(answer.read())

    def post(self, path: str, body: JsonMapping) -> bytes:
        """Posts a body; returns the bytes of the answer, such as audio."""
        with self._send("POST", path, body) as answer:
            return answer.read()

    def events(self, path: str, body: JsonMapping) -> Generator[Any, None, None]:
        """Posts a body; yields the JSON of each event of the answer. Closing the iterator closes
        the connection, so that the server stops generating."""
        with self._send("POST", path, body) as answer:
            decoder = Decoder()
            while chunk := answer.read1(_CHUNK):
                for event in decoder.feed(chunk):
                    if event.data == "[DONE]":
                        return
                    yield _raise_error_event(_json(event.data))

    @contextmanager
    def _send(
        self, method: str, path: str, body: JsonMapping | None
    ) -> Iterator[http.client.HTTPResponse]:
        secure = self._parts.scheme == "https"
        kind = http.client.HTTPSConnection if secure else http.client.HTTPConnection
        host = self._parts.hostname or ""
        connection = kind(host, self._port, timeout=self._timeout_s)
        is_answering = False
        try:
            data = None if body is None else json.dumps(body).encode()
            connection.request(
                method, self._parts.path.rstrip("/") + path, body=data, headers=self._headers(data)
            )
            answer = connection.getresponse()
            is_answering = True
            if answer.status != 200:
                hint = self._key_hint if answer.status == HTTPStatus.UNAUTHORIZED else ""
                message = _reason(answer.status, answer.read()) + hint
                raise ApiRequestError(message, status=answer.status)
            yield answer
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            if is_answering:
                message = f"The answer of {self.base_url} broke off: {reason}."
            else:
                message = f"{self.base_url} cannot be reached: {reason}."
            raise ApiRequestError(message) from error
        finally:
            connection.close()

    def _headers(self, data: bytes | None) -> dict[str, str | bytes]:
        headers = dict[str, str | bytes](self._more_headers)
        if data is not None:
            headers["content-type"] = "application/json"
        if self._key:
            headers["authorization"] = f"Bearer {self._key}"
        return headers


def _no_base_url(text: str) -> ApiRequestError:
    return ApiRequestError(f"`{text}` is not a base URL like http://127.0.0.1:8000/v1.")


def _raise_error_event(event: Any) -> Any:
    if isinstance(event, dict) and event.get("error") is not None:
        message = _message_of(event["error"])
        raise ApiRequestError(message or "The server sent an error without a message.")
    return event


def _reason(status: int, body: bytes) -> str:
    try:
        message = _message_of(json.loads(body)["error"])
    except (ValueError, KeyError, TypeError):
        message = None
    return f"The server answered {status}." if message is None else f"{message} ({status})"


def _message_of(error: object) -> str | None:
    """Returns the message of an error object, or of an error that is a text, as some servers send
    it; None if it has none."""
    message = error.get("message") if isinstance(error, dict) else error
    return message if isinstance(message, str) else None


def _json(text: bytes | str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise ApiRequestError(
            "The server does not speak this API: its answer is not JSON."
        ) from error
