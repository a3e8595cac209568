"""The largest bodies that operations take, small ones that ask for much, frames of WebSockets,
events of realtime sessions, and lines of batches block no other request, and their memory is freed.

`make test` sends what is large in a way of its own, and to each operation that is answered here one
body of as many values as there may be; `make large-bodies` sends all bodies to all operations, a
test for each tag of the document (`ARGS="-k Chat"` is a part), and prints the longest waits. On a
quiet machine none is to be 100 ms: processors that others share compute less in the same time, so
here more is allowed.
"""

import contextlib
import json
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from llm_backend.contract import Operation, load_document
from llm_backend.json_types import JsonValue
from tests import large_bodies, large_events, large_forms
from tests.large_bodies import Large, LargeBodies
from tests.serving import Served, serve
from tests.small_bodies import SMALL

DOCUMENT = load_document()
BODIES = LargeBodies(DOCUMENT)
WHOLE, OTHER = "all", "other work"
REALTIME = "Realtime"  # the tag whose sessions take events
KEY = "sk-large"
ALLOWED_S = 0.3
ALLOWED_QUIET_S = 0.1
KEPT_MIB = 64
"""Resident memory that may remain: free pools of the interpreter's arenas, which it uses again. An
arena (1 MiB) stays for one small object that was made during a large request, and lasts."""
SAMPLER = Path(__file__).parents[1] / "health_sampler.py"
ANSWER = {
    "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "relayed",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hi"},
                 "finish_reason": "stop"}],
}  # fmt: skip
OF_ITS_OWN = {
    "createChatCompletion": (
        "a long message", "a message of control tokens", "many calls", "many messages",
        "a strict tool of many alternatives", "a schema of many alternatives", "many biases",
        "many messages of a relayed chat", "a schema of deep alternatives", "user: a file",
    ),
    "createResponse": (
        "many calls alone", "many typed items", "a long relayed item", "a file",
        "previous_response_id: a file",
    ),
    "createConversation": ("many items",),
    "createEmbedding": ("tokens",),
    "createModeration": ("input: a file",),
    "createBatch": ("input_file_id: a file",),
    "createImageEdit": ("form: a longer field than accepted",),
    "createTranscription": ("form: more parts than accepted",),
    "tokenize": (
        "text: text", "as many tokens as it takes", "an unknown field: long numbers",
    ),
}  # fmt: skip
EVERYWHERE = "an unknown field: many keys"
NO_ANSWER = 0
ANSWER_S = 20  # without other load
BUSY_S = 120
BATCH_ENDS = ("completed", "failed", "expired", "cancelled")
COMPACT = {"separators": (",", ":"), "ensure_ascii": False}
FOLLOWED = {
    "a file": lambda: [{"type": "image_url", "image_url": {"url": large_bodies.file()}}],
    "escapes": lambda: '\n"' * (large_bodies.TEXT_BYTES // 4),
    "many parts": lambda: [{"type": "text", "text": "a"}] * (large_bodies.NODES // 6),
}
_MASK = b"\0\0\0\0"
FRAME_OF_CLOSE = b"\x88\x82" + _MASK + b"\x03\xe8"
FRAMES = {
    "empty pings": (b"\x89\x80" + _MASK) * 200_000,
    "empty fragments": b"\x01\x80" + _MASK + (b"\x00\x80" + _MASK) * 200_000,
    "empty messages": (b"\x81\x80" + _MASK) * 20_000,
    "a message in short fragments": (
        b"\x01\x81" + _MASK + b"a" + (b"\x00\x81" + _MASK + b"a") * 200_000
    ),
}


class Upstream(BaseHTTPRequestHandler):
    """Reads everything and always says the same, but does not end a streamed answer."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        left, end = int(self.headers.get("content-length", 0)), b""
        while left and (piece := self.rfile.read(min(left, 1 << 20))):
            left, end = left - len(piece), piece[-100:]
        if b'"stream":true' in end:
            self.send_response(200)
            self.send_header("content-type", "text/event-stream")
            self.end_headers()
            self.wfile.write(b"data: {}\n\n")
            self.rfile.read(1)  # until the server closes the connection
            self.close_connection = True
            return
        body = json.dumps(ANSWER).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing of it is told."""


@contextlib.contextmanager
def upstream() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Upstream)
    serving = threading.Thread(target=server.serve_forever, daemon=True)
    serving.start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    server.server_close()


class Sampler:
    """Asks beside us whether the server is alive."""

    def __init__(self, served: Served) -> None:
        port = served.address.rsplit(":", 1)[1]
        self._process = subprocess.Popen(
            [sys.executable, str(SAMPLER), port, str(served.process.pid)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def longest_wait_s(self) -> float:
        """Since it was asked this before."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())["wait_s"]

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(60)
        self._process.stdout.close()


def sent(client: httpx.Client, large: Large, ids: dict[str, str]) -> int:
    operation = DOCUMENT.operations[large.operation_id]
    path = re.sub(r"\{(\w+)\}", lambda found: ids.get(found[1], "none"), operation.path)
    try:
        return client.request(
            operation.method, path, content=iter(large.pieces),
            headers={
                "content-type": large.media_type,
                "content-length": str(sum(map(len, large.pieces))),
            },
        ).status_code  # fmt: skip
    except httpx.TimeoutException:
        return NO_ANSWER


def send_frames(served: Served, frames: bytes, answer_s: float) -> None:
    """Sends frames to a WebSocket for responses, and waits until it has been closed."""
    address = served.base_url.replace("http", "ws") + "/responses"
    with connect(address, additional_headers={"authorization": f"Bearer {KEY}"}) as socket:

        def read_all() -> None:
            with contextlib.suppress(ConnectionClosed):
                while True:
                    socket.recv()

        reading = threading.Thread(target=read_all)
        reading.start()
        with contextlib.suppress(OSError):
            socket.socket.sendall(frames)
            socket.socket.sendall(FRAME_OF_CLOSE)
        reading.join(answer_s)


def send_event(served: Served, event: str, answer_s: float) -> None:
    """Sends an event to a realtime session, and reads until a short event of the session's."""
    address = served.base_url.replace("http", "ws") + "/realtime?model=builtin"
    headers = {"authorization": f"Bearer {KEY}"}
    with connect(address, additional_headers=headers, max_size=None) as socket:
        socket.send(event)
        socket.send('{"type": "response.cancel"}')  # there is none, which ends the answers
        while '"response_cancel_not_active"' not in str(socket.recv(answer_s))[:1000]:
            pass


def run_batch(client: httpx.Client, bodies: list[bytes], answer_s: float) -> None:
    """Runs a batch of chats, whose model is not there, to its end."""
    lines = [
        b'{"custom_id":"%d","method":"POST","url":"/v1/chat/completions","body":%s}' % (number, one)
        for number, one in enumerate(bodies)
    ]
    upload = {"file": ("in.jsonl", b"\n".join(lines))}
    bare = {"authorization": client.headers["authorization"]}
    file = httpx.post(
        f"{client.base_url}files", data={"purpose": "batch"}, files=upload, headers=bare,
        timeout=answer_s,
    ).raise_for_status().json()  # fmt: skip
    batch = {"input_file_id": file["id"], "endpoint": "/v1/chat/completions"}
    made = client.post("/batches", json={**batch, "completion_window": "24h"}).raise_for_status()
    deadline = time.monotonic() + answer_s
    while client.get(f"/batches/{made.json()['id']}").json()["status"] not in BATCH_ENDS:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def follow_detached(client: httpx.Client, number: int, content: JsonValue) -> None:
    """Starts a detached chat with this content, reads the first event of another client that
    follows it, and cancels it."""
    id = f"followed-{number}"
    messages = [{"role": "user", "content": content}]
    body = json.dumps({"model": "relayed", "messages": messages, "stream": True}, **COMPACT)
    headers = {"x-llm-backend-detached": id}
    with client.stream("POST", "/chat/completions", content=body, headers=headers) as answer:
        assert answer.status_code == 200, answer.read()
        with client.stream("GET", f"/chat/detached/{id}") as followed:
            size = 0
            for piece in followed.iter_raw():
                size += len(piece)
                if size > len(body) // 2 and piece.endswith(b"\n\n"):
                    break
        client.post(f"/chat/detached/{id}/cancel").raise_for_status()


def other_work(
    served: Served, client: httpx.Client, answer_s: float
) -> Iterator[tuple[str, Callable[[], object]]]:
    """Yields work that is not one body of one operation, with its name."""
    chat = {"model": "none", "messages": [{"role": "user", "content": "a"}] * 20_000}
    line = json.dumps(chat).encode()
    yield "batch | lines of many messages", lambda: run_batch(client, [line] * 8, answer_s)
    for shape, frames in FRAMES.items():
        yield f"frames | {shape}", lambda frames=frames: send_frames(served, frames, answer_s)
    detached = {"x-llm-backend-detached": "large-chat"}
    many = json.dumps({"a": [1] * 2_000_000}).encode()
    yield (
        "detached chat | more values than accepted",
        lambda: client.post("/chat/completions", content=many, headers=detached),
    )
    for number, (shape, content) in enumerate(FOLLOWED.items()):
        yield (
            f"detached chat | followed: {shape}",
            lambda number=number, content=content: follow_detached(client, number, content()),
        )
    tool = {"name": "chat", "arguments": {"model": "none", "message": "a" * 15_000_000}}
    call = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": tool}
    accepted = {"accept": "application/json, text/event-stream"}
    yield (
        "mcp | a long argument",
        lambda: client.post(f"{served.address}/mcp", json=call, headers=accepted),
    )


def realtime_work(served: Served, answer_s: float) -> Iterator[tuple[str, Callable[[], object]]]:
    """Yields large events of realtime sessions, with their names."""
    for shape, event in large_events.EVENTS.items():
        yield (
            f"event | {shape}",
            lambda event=event: send_event(served, json.dumps(event()), answer_s),
        )


def shapes_of(operation: Operation, config: pytest.Config) -> list[str]:
    """The bodies to send to an operation."""
    name = operation.operation_id
    if config.getoption("--every-large-body"):
        named = re.compile(config.getoption("--large-body") or "")
        return [one for one in BODIES.shapes(name) if named.search(f"{name} | {one}")]
    everywhere = [EVERYWHERE] if operation.answered_by == "local" else []
    return [*OF_ITS_OWN.get(name, ()), *SMALL.get(name, ()), *everywhere]


def wanted(config: pytest.Config, part: str) -> Iterator[Large]:
    for operation in DOCUMENT.operations.values():
        if part in (WHOLE, operation.tag):
            yield from BODIES.of(operation.operation_id, shapes_of(operation, config))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """All bodies of all operations are a test for each tag, and one of the other work."""
    parts = [WHOLE]
    if metafunc.config.getoption("--every-large-body"):
        operations = DOCUMENT.operations.values()
        tags = {one.tag for one in operations if shapes_of(one, metafunc.config)}
        parts = [*sorted(tags), OTHER]
    metafunc.parametrize("part", parts)


def resident_mib(served: Served) -> int:
    status = Path(f"/proc/{served.process.pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) // 1024


def test_no_large_body_keeps_others_waiting_or_its_memory(tmp_path, pytestconfig, part):
    has_all = pytestconfig.getoption("--every-large-body")
    allowed_s, answer_s = (ALLOWED_QUIET_S, ANSWER_S) if has_all else (ALLOWED_S, BUSY_S)
    waits: list[tuple[float, str]] = []
    failed: list[str] = []
    with upstream() as url, contextlib.ExitStack() as stack:
        environment = {
            "OPENAI_BASE_URL": url, "OPENAI_API_KEY": "none", "LLM_BACKEND_API_KEYS": KEY,
            "LLM_BACKEND_MODERATION_MODEL": "builtin", "LLM_BACKEND_MCP_API": "true",
        }  # fmt: skip
        as_by_default = ("--response-validation", "log")  # `enforce` reads each answer again
        served = stack.enter_context(serve(tmp_path, *as_by_default, environment=environment))
        headers = {"authorization": f"Bearer {KEY}", "content-type": "application/json"}
        client = stack.enter_context(
            httpx.Client(base_url=served.base_url, headers=headers, timeout=answer_s)
        )
        ids = warmed_up(client, pytestconfig, part)
        before_mib, sampler = resident_mib(served), Sampler(served)
        stack.callback(sampler.close)
        sampler.longest_wait_s()

        def note(name: str) -> None:
            waits.append((sampler.longest_wait_s(), name))
            if has_all:
                sys.stdout.write(f"{1000 * waits[-1][0]:6.0f} ms  {name}\n")
                sys.stdout.flush()

        for large in wanted(pytestconfig, part):
            status = sent(client, large, ids)
            note(f"{large.operation_id} | {large.shape} | {status}")
            if status == NO_ANSWER or (status >= 500 and status not in (501, 503)):
                failed.append(waits[-1][1])
        for name, work in other_work(served, client, answer_s) if part in (WHOLE, OTHER) else ():
            work()
            note(name)
        for name, work in realtime_work(served, answer_s) if part in (WHOLE, REALTIME) else ():
            work()
            note(name)
        after_mib = settled_mib(served, before_mib + KEPT_MIB)
    waits.sort(reverse=True)
    too_long = sum(wait >= allowed_s for wait, _ in waits)
    told = "\n".join(f"{1000 * wait:6.0f} ms  {name}" for wait, name in waits[: max(20, too_long)])
    sys.stdout.write(
        f"{part}: {len(waits)} bodies; {before_mib} MiB before, {after_mib} after\n{told}\n"
    )
    assert failed == []
    assert waits[0][0] < allowed_s, told
    assert after_mib <= before_mib + KEPT_MIB
    assert "Traceback" not in served.log.read_text()


def warmed_up(client: httpx.Client, config: pytest.Config, part: str) -> dict[str, str]:
    """Has the server import and compile what the bodies need, by small ones of the same shapes; the
    ids of what is in it then."""
    chat = {"model": "builtin", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2}
    answered = client.post("/chat/completions", json=chat).raise_for_status().json()
    client.post("/chat/completions", json={**chat, "model": "relayed"}).raise_for_status()
    client.post("/responses", json={"model": "builtin", "input": "Hi"}).raise_for_status()
    conversation = client.post("/conversations", json={}).raise_for_status().json()
    upload = {"purpose": "assistants", "filename": "a", "mime_type": "text/plain", "bytes": 1 << 28}
    parted = client.post("/uploads", json=upload).raise_for_status().json()
    ids = {
        "completion_id": answered["id"],
        "conversation_id": conversation["id"],
        "upload_id": parted["id"],
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, small in (("NODES", 1000), ("TEXT_BYTES", 2000), ("FILE_BYTES", 8000)):
            patch.setattr(large_bodies, name, small)
        patch.setattr(large_forms, "SCALE", 0.001)
        for body in wanted(config, part):
            sent(client, body, ids)
    return ids


def settled_mib(served: Served, allowed_mib: int) -> int:
    """Resident memory once freed memory has been returned, which is done a moment later."""
    deadline = time.monotonic() + 30
    while (found := resident_mib(served)) > allowed_mib and time.monotonic() < deadline:
        time.sleep(0.1)
    return found
