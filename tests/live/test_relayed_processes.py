"""The concurrency limit of an upstream holds for all processes of a server together."""

import json
import re
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
import yaml

from tests.serving import Served, serve

CHAT = {"model": "far", "messages": [{"role": "user", "content": "Hi"}]}
COMPLETION = {"id": "c", "object": "chat.completion", "created": 1, "model": "far", "choices": []}
TAKES_S = 0.03
MOST = 2


class Upstream(ThreadingHTTPServer):
    """Answers every chat after a while, and knows how many it has had at once."""

    request_queue_size = 64

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Chat)
        self.lock = threading.Lock()
        self.inside = self.most = self.answered = 0


class _Chat(BaseHTTPRequestHandler):
    server: Upstream

    def do_POST(self) -> None:
        upstream = self.server
        self.rfile.read(int(self.headers["content-length"]))
        with upstream.lock:
            upstream.inside += 1
            upstream.most = max(upstream.most, upstream.inside)
        time.sleep(TAKES_S)
        with upstream.lock:  # before the answer, which lets the next one in
            upstream.inside -= 1
            upstream.answered += 1
        answer = json.dumps(COMPLETION).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with Upstream() as one:
        threading.Thread(target=one.serve_forever, daemon=True).start()
        yield one
        one.shutdown()


def test_an_upstream_gets_no_more_at_once_from_two_processes_than_from_one(
    upstream: Upstream, tmp_path: Path
):
    address = f"http://127.0.0.1:{upstream.server_port}/v1"
    far = {"name": "far", "base_url": address, "api_key": "k", "concurrency": MOST}
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump({"backends": [far]}))
    flags = ("--model", "none", "--config", str(config), "--processes", "2")
    with serve(tmp_path, *flags) as served:

        def ask(_: int) -> int:
            """Over a connection of its own, so that any process may take it."""
            url = f"{served.base_url}/chat/completions"
            return httpx.post(url, json=CHAT, timeout=60).status_code

        statuses: list[int] = []
        deadline = time.monotonic() + 120
        with ThreadPoolExecutor(12) as threads:
            while len(who_answered(served)) < 2:
                assert time.monotonic() < deadline
                statuses += threads.map(ask, range(40))

    assert set(statuses) == {200}
    assert (upstream.most, upstream.answered) == (MOST, len(statuses))


def who_answered(served: Served) -> set[str]:
    """The processes that have answered chats."""
    found = re.findall(r"\[(\d+)\] answered operation=createChatCompletion", served.log.read_text())
    return set(found)
