"""Receiver of webhooks over real HTTP, which checks them with the official SDK."""

import contextlib
import queue
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import openai
from openai.types.webhooks import UnwrapWebhookEvent

WAIT_S = 60.0
ANY_AGE_S = 10**9


@dataclass(frozen=True, kw_only=True)
class Received:
    """One request: its headers and its body."""

    headers: Mapping[str, str]
    body: bytes

    def unwrap(self, secret: str) -> UnwrapWebhookEvent:
        """The event, checked by the SDK. Raises `InvalidWebhookSignatureError`."""
        return openai.OpenAI(api_key="none").webhooks.unwrap(self.body, self.headers, secret=secret)

    def verify(self, secret: str) -> None:
        """Checks the signature alone, at any time of the injected clock. Raises
        `InvalidWebhookSignatureError`."""
        webhooks = openai.OpenAI(api_key="none").webhooks
        webhooks.verify_signature(self.body, self.headers, secret=secret, tolerance=ANY_AGE_S)


@dataclass(kw_only=True)
class Receiver:
    """Answers each request with the next of `statuses`, and with 204 once these are used up; with
    `retry_after`, if it is not empty."""

    port: int
    retry_after: str = ""
    statuses: list[int] = field(default_factory=list)
    received: "queue.Queue[Received]" = field(default_factory=queue.Queue)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/events?token=confidential"

    @property
    def host(self) -> str:
        """The host as the setting `webhook_hosts` names it."""
        return f"127.0.0.1:{self.port}"

    def next(self) -> Received:
        """The next request, as soon as it is there."""
        return self.received.get(timeout=WAIT_S)


@contextlib.contextmanager
def receiving(*, gate: threading.Event | None = None) -> Iterator[Receiver]:
    """A receiver on a free port of loopback, which answers when `gate` is set if there is one."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            receiver.received.put(Received(headers=dict(self.headers.items()), body=body))
            if gate is not None:
                gate.wait(WAIT_S)
            status = receiver.statuses.pop(0) if receiver.statuses else 204
            self.send_response(status)
            if receiver.retry_after:
                self.send_header("Retry-After", receiver.retry_after)
            if status == 302:
                self.send_header("Location", receiver.url)
            with contextlib.suppress(OSError):  # the server was killed meanwhile
                self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """Logs nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        receiver = Receiver(port=server.server_address[1])
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield receiver
        finally:
            server.shutdown()
            thread.join()
