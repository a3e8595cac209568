"""Pages of other sites, in a real browser and without one, against a server that relays."""

import http.client
import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest
from playwright.sync_api import expect

from llm_backend.contract import load_document
from tests.browser import PATIENCE_MS
from tests.serving import Served, serve

FOREIGN = {"origin": "http://evil.test"}
CROSS_SITE = {"sec-fetch-site": "cross-site"}
WAV = b"RIFF$\0\0\0WAVEfmt "


@dataclass(kw_only=True)
class Listening:
    """A server of a test: its port, and the requests that reached it."""

    port: int
    reached: list[str] = field(default_factory=list)


@contextmanager
def listening(body: bytes, media_type: str) -> Iterator[Listening]:
    """Answers everything with the same."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            state.reached.append(f"{self.command} {self.path}")
            self.rfile.read(int(self.headers.get("content-length", 0)))
            self.send_response(200)
            self.send_header("content-type", media_type)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = do_DELETE = do_PUT = do_PATCH = answer  # noqa: N815 # of http.server

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        state = Listening(port=server.server_port)
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield state
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def upstream() -> Iterator[Listening]:
    with listening(b'{"text": "hello", "data": []}', "application/json") as one:
        yield one


@pytest.fixture(scope="module")
def relay(tmp_path_factory: pytest.TempPathFactory, upstream: Listening) -> Iterator[Served]:
    environment = {
        "OPENAI_API_KEY": "sk-operator",
        "OPENAI_BASE_URL": f"http://127.0.0.1:{upstream.port}/v1",
    }
    with serve(tmp_path_factory.mktemp("relay"), environment=environment) as served:
        yield served


def answered(served: Served) -> dict[str, float]:
    """Answered requests by operation, without those of `/metrics`."""
    text = httpx.get(f"{served.address}/metrics").text
    counted: dict[str, float] = {}
    for operation, count in re.findall(
        r'^llm_backend_requests_total\{operation="(\w+)".*\} (\S+)$', text, re.MULTILINE
    ):
        if operation not in ("none", "web", "getMetrics"):
            counted[operation] = counted.get(operation, 0) + float(count)
    return counted


def refusals_of(served: Served) -> int:
    return served.log.read_text().count("cross_site_request_refused")


def wait_for_refusals(served: Served, count: int) -> None:
    deadline = time.monotonic() + 60
    while refusals_of(served) < count:
        assert time.monotonic() < deadline, served.log.read_text()
        time.sleep(0.02)


def test_form_of_another_site_is_not_relayed(relay, upstream):
    url, form = f"{relay.base_url}/audio/transcriptions", {"model": "whisper-1"}
    file = {"file": ("a.wav", WAV, "audio/wav")}
    refused = [
        httpx.post(url, data=form, files=file, headers=headers)
        for headers in ({**FOREIGN, **CROSS_SITE}, FOREIGN, CROSS_SITE, {"origin": "null"})
    ]
    reached = list(upstream.reached)
    allowed = httpx.post(url, data=form, files=file)

    assert [answer.status_code for answer in refused] == [403] * 4
    assert reached == []
    assert (allowed.status_code, len(upstream.reached)) == (200, 1)


@pytest.mark.parametrize("headers", [FOREIGN, CROSS_SITE], ids=["origin", "sec-fetch-site"])
def test_every_operation_refuses_other_sites(relay, upstream, headers):
    upstream.reached.clear()
    before = answered(relay)
    operations = load_document().operations.values()
    host = relay.address.removeprefix("http://")
    with closing(http.client.HTTPConnection(host, timeout=60)) as connection:
        for operation in operations:
            path = re.sub(r"\{[^}]*\}", "x", operation.path)
            for prefix in ("/v1", ""):
                connection.request(operation.method, prefix + path, b"{}", headers)
                answer = connection.getresponse()

                assert answer.status == 403, operation.operation_id
                assert answer.headers["x-request-id"]
                error = json.loads(answer.read())["error"]
                if operation.tag == "Messages":  # whose errors have Anthropic's shape
                    assert error["type"] == "permission_error"
                elif operation.tag == "Ollama":  # whose errors are a sentence
                    assert "origin" in error
                else:
                    assert error["code"] == "origin_not_allowed"

    assert upstream.reached == []
    assert answered(relay) == before


# Everything that a page can make a browser send without asking this server first, and what it asks
# for before (a preflight). Each attempt says when it has ended, whichever way.
ATTACK = """
async (target) => {
  const until = (name, start) => new Promise((done) => {
    start((how) => done(`${name}: ${how}`));
  });
  const loaded = (name, element, attributes) => until(name, (done) => {
    element.onload = () => done("loaded");
    element.onerror = () => done("failed");
    Object.assign(element, attributes);
    document.body.append(element);
  });
  const asked = (name, path, options) =>
    fetch(target + path, options).then(
      (answer) => `${name}: ${answer.type} ${answer.status}`, () => `${name}: failed`);
  const form = (name, path, enctype, fields) => until(name, (done) => {
    const frame = document.createElement("iframe");
    frame.name = name;
    document.body.append(frame);
    const element = document.createElement("form");
    Object.assign(element, { method: "POST", action: target + path, enctype, target: name });
    for (const [field, value] of Object.entries(fields)) {
      const input = document.createElement("input");
      Object.assign(input, { name: field, value });
      element.append(input);
    }
    document.body.append(element);
    frame.onload = () => done("answered");
    element.submit();
  });
  const audio = new FormData();
  audio.append("model", "whisper-1");
  audio.append("file", new Blob(["RIFF"]), "a.wav");
  const chat = JSON.stringify({ model: "builtin", messages: [{ role: "user", content: "x" }] });
  const post = { method: "POST", mode: "no-cors" };
  return Promise.all([
    form("multipart", "/v1/audio/transcriptions", "multipart/form-data", { model: "whisper-1" }),
    form("text", "/v1/chat/completions", "text/plain", { '{"model": "builtin", "a': '": 1}' }),
    form("urlencoded", "/v1/files", "application/x-www-form-urlencoded", { purpose: "batch" }),
    asked("blob", "/v1/audio/transcriptions", { ...post, body: audio }),
    asked("simple", "/v1/chat/completions", { ...post, body: chat }),
    asked("empty", "/v1/models/builtin/unload", post),
    asked("preflight", "/v1/chat/completions",
      { method: "POST", body: chat, headers: { "content-type": "application/json" } }),
    asked("delete", "/v1/chat/completions/x", { method: "DELETE" }),
    asked("get", "/v1/models", {}),
    until("beacon", (done) => done(navigator.sendBeacon(target + "/unloadModel", chat))),
    until("socket", (done) => {
      const socket = new WebSocket(target.replace("http", "ws") + "/v1/responses");
      socket.onopen = () => done("opened");
      socket.onerror = () => done("failed");
    }),
    loaded("image", new Image(), { src: target + "/chat/ask?question=x" }),
    loaded("script", document.createElement("script"), { src: target + "/unloadModel" }),
    loaded("frame", document.createElement("iframe"), { src: target + "/chat/ask?question=y" }),
  ]);
}
"""
SENT = 14  # each of these, for two of them the preflight


@pytest.mark.parametrize("site", ["localhost", "127.0.0.1"], ids=["cross-site", "same-site"])
def test_page_of_another_site_makes_the_server_do_nothing(relay, upstream, browser, site):
    upstream.reached.clear()
    before, refusals = answered(relay), refusals_of(relay)
    with listening(b"<!doctype html><body>evil", "text/html") as evil:
        page = browser.new_page()
        page.set_default_timeout(PATIENCE_MS)
        page.goto(f"http://{site}:{evil.port}/")
        outcomes = page.evaluate(ATTACK, relay.address)
        wait_for_refusals(relay, refusals + SENT)  # no page is told how its beacon fared
        page.close()

    assert [one for one in outcomes if one.endswith(("opened", "200", "loaded"))] == [
        "frame: loaded"  # with the refusal in it
    ]
    assert upstream.reached == []
    assert answered(relay) == before


def test_link_of_another_site_leads_to_the_pages(relay, browser):
    with listening(
        f'<!doctype html><a href="{relay.address}/">chat</a>'.encode(), "text/html"
    ) as other:
        page = browser.new_page()
        page.set_default_timeout(PATIENCE_MS)
        page.goto(f"http://localhost:{other.port}/")
        page.get_by_text("chat").click()
        expect(page.locator("#model")).to_have_value("builtin")
        page.close()


def test_page_of_a_named_origin_uses_the_server(tmp_path, browser):
    with listening(b"<!doctype html><body>", "text/html") as friend:
        origin = f"http://localhost:{friend.port}"
        flags = ("--cors-origin", origin)
        with serve(tmp_path, *flags) as served:
            page = browser.new_page()
            page.set_default_timeout(PATIENCE_MS)
            page.goto(origin)
            status = page.evaluate(
                """async (target) => {
                  const body = JSON.stringify({ model: "builtin", text: "x" });
                  const headers = { "content-type": "application/json" };
                  const answer = await fetch(target + "/v1/tokenize",
                    { method: "POST", body, headers });
                  return answer.status;
                }""",
                served.address,
            )
            page.close()

    assert status == 200
