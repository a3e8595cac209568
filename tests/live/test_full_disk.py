"""A disk that is full: what is not stored is never called stored, and the server says so."""

import base64
import contextlib
import json
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator

import httpx
import pytest

from tests.audio_files import RATE_HZ, wav_file
from tests.extraction.documents import docx, pdf
from tests.serving import Served, serve
from tests.small_tmp import filled, small_tmp
from tests.whisper_models import require_transcription, write_whisper

CHAT = {
    "model": "builtin",
    "messages": [{"role": "user", "content": "Hello!"}],
    "max_tokens": 4,
}
NO_ROOM_BYTES = 4096  # less than a page of the database's log and its head


@contextlib.contextmanager
def no_room(served: Served) -> Iterator[None]:
    """No file of this server can have more bytes than these, as on a full disk; the limit holds for
    every user that runs the tests."""
    pid, (_, hard) = served.process.pid, resource.getrlimit(resource.RLIMIT_FSIZE)
    usual = resource.prlimit(pid, resource.RLIMIT_FSIZE, (NO_ROOM_BYTES, hard))
    try:
        yield
        # The log has no room either. Once this is answered, its last lines were tried: the error of
        # one must not be printed when there is room again.
        httpx.get(f"{served.address}/healthz")
    finally:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, usual)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serve(tmp_path_factory.mktemp("full")) as one:
        yield one


@pytest.fixture
def ask(served: Served) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=served.base_url, timeout=60) as client:
        yield client


def last_event(text: str) -> dict:
    *_, last = [line for line in text.splitlines() if line.startswith("data: ")]
    return json.loads(last.removeprefix("data: "))


def metric(served: Served, name: str) -> float:
    lines = httpx.get(f"{served.address}/metrics").text.splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))


def test_a_full_disk_fails_stored_requests_and_readiness_until_space_is_free(served, ask):
    before = httpx.get(f"{served.address}/readyz").status_code
    with no_room(served):
        whole = ask.post("/chat/completions", json={**CHAT, "store": True})
        streamed = ask.post("/chat/completions", json={**CHAT, "store": True, "stream": True})
        response = ask.post("/responses", json={"model": "builtin", "input": "Hello!"})
        file = ask.post(
            "/files", data={"purpose": "user_data"}, files={"file": ("a.txt", b"x" * 10_000)}
        )
        thread = ask.post("/conversations", json={})
        session = {"type": "realtime", "model": "builtin"}
        secret = ask.post("/realtime/client_secrets", json={"session": session})
        unready = httpx.get(f"{served.address}/readyz")
        alive = httpx.get(f"{served.address}/healthz").status_code
    after = httpx.get(f"{served.address}/readyz").status_code
    stored = ask.post("/chat/completions", json={**CHAT, "store": True})

    assert (before, unready.status_code, alive, after) == (200, 503, 200, 200)
    assert "database cannot be used" in unready.json()["error"]["message"]
    for refused in (whole, response, file, thread, secret):
        assert refused.status_code == 503, refused.text
        assert refused.headers["retry-after"]
        assert refused.json()["error"]["type"] == "server_error"
    assert last_event(streamed.text)["error"]["code"] == "overloaded"
    assert ask.get(f"/chat/completions/{stored.json()['id']}").status_code == 200


def test_chats_that_are_stored_by_default_are_answered_and_counted_if_lost(served, ask):
    before = metric(served, "llm_backend_not_stored_total")
    with no_room(served):
        answers = [ask.post("/chat/completions", json=CHAT) for _ in range(3)]
    lost = [ask.get(f"/chat/completions/{one.json()['id']}") for one in answers]

    assert [one.status_code for one in answers] == [200] * 3
    assert [one.status_code for one in lost] == [404] * 3
    assert metric(served, "llm_backend_not_stored_total") - before == 3
    assert metric(served, "llm_backend_store_write_failures_total") > 0


def test_files_of_a_request_that_find_no_room_are_a_503_with_a_pause(ask, served):
    file = {"type": "input_file", "filename": "a.html", "file_data": (
        "data:text/html;base64," + base64.b64encode(b"<p>hello</p>" * 100_000).decode()
    )}  # fmt: skip
    body = {"model": "builtin", "input": [{"role": "user", "content": [file]}], "store": False}
    with no_room(served):
        read = ask.post("/responses", json=body)
        sent = ask.post(
            "/files", data={"purpose": "user_data"}, files={"file": ("a.txt", b"a" * 2_000_000)}
        )

    assert [one.status_code for one in (read, sent)] == [503, 503]
    assert all(float(one.headers["retry-after"]) > 0 for one in (read, sent))
    assert "Traceback" not in served.log.read_text()


def test_a_full_folder_of_temporary_files_is_reported_until_it_has_room(tmp_path):
    require_transcription()
    scratch = tmp_path / "tmp"
    scratch.mkdir()
    model = write_whisper(tmp_path / "hello.bin")
    page = {"type": "input_file", "filename": "a.html", "file_data": (
        "data:text/html;base64," + base64.b64encode(b"<p>hello</p>" * 1000).decode()
    )}  # fmt: skip
    body = {"model": "builtin", "input": [{"role": "user", "content": [page]}], "store": False}
    form = {"data": {"model": "hello"}, "files": {"file": ("a.wav", wav_file(4))}}
    flags = ("--model", "builtin", "--model", str(model))
    environment = {"TMPDIR": str(scratch)}
    with (
        serve(tmp_path, *flags, environment=environment, prefix=small_tmp(scratch)) as served,
        httpx.Client(base_url=served.base_url, timeout=60) as ask,
    ):
        with filled(scratch, served.process.pid):
            refused = [
                ask.post("/audio/transcriptions", **form),
                ask.post("/responses", json=body),
            ]
            warned = httpx.get(f"{served.address}/readyz")
            status = first_status(served)
        answered = ask.post("/audio/transcriptions", **form)
        after = httpx.get(f"{served.address}/readyz")
        counted = [
            metric(served, f'llm_backend_temporary_file_failures_total{{what="{what}"}}')
            for what in ("recording", "document")
        ]

    assert [one.status_code for one in refused] == [503, 503], refused
    assert all(float(one.headers["retry-after"]) > 0 for one in refused)
    assert warned.status_code == 200
    assert len(warned.json()["warnings"]) == 1
    assert warned.json()["warnings"][0] in status["info"]
    assert answered.status_code == 200
    assert "warnings" not in after.json()
    assert counted == [1, 1]


def first_status(served: Served) -> dict:
    with httpx.stream("GET", f"{served.base_url}/status", timeout=60) as answer:
        line = next(one for one in answer.iter_lines() if one.startswith("data: "))
    return json.loads(line.removeprefix("data: "))


def test_processes_that_read_files_write_none():
    """A full disk cannot strike them: no file of theirs can have a byte here."""
    gib, reader = str(1 << 30), "llm_backend.extraction.reader"
    documents = {"html": b"<p>hello</p>", "pdf": pdf("hello"), "docx": docx("hello")}
    read = {
        format: run_without_files(content, reader, format, "60", gib, gib)
        for format, content in documents.items()
    }
    decoder = "llm_backend.backends.recordings.audio_reader"
    heard = run_without_files(wav_file(1), decoder, "60", gib, "9", str(RATE_HZ))

    assert {format: (one.returncode, one.stdout.strip()) for format, one in read.items()} == (
        dict.fromkeys(documents, (0, b"hello"))
    )
    assert (heard.returncode, len(heard.stdout)) == (0, 2 * RATE_HZ)


def run_without_files(content: bytes, *command: str) -> subprocess.CompletedProcess[bytes]:
    """Runs a module whose files can have no bytes, with a file as its standard input."""
    with tempfile.TemporaryFile() as file:
        file.write(content)
        file.seek(0)
        return subprocess.run(
            ["sh", "-c", 'ulimit -f 0 && exec "$@"', "sh", sys.executable, "-m", *command],
            stdin=file, stdout=subprocess.PIPE, check=False,
        )  # fmt: skip
