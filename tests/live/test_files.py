"""Files through the official client: uploaded, found after a restart, shared, never half there."""

import asyncio
import os
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx
import openai
import pytest

from tests.patience import wait_until
from tests.postgresql import PostgresqlServer
from tests.s3 import S3Server
from tests.serving import Served, serve
from tests.strict_sdk import StrictOpenAI

NAME = "../ünï code.jsonl"
TEXT = b'{"a": 1}\n' * 1_000
NO_MODEL = ("--model", "none")


def client_of(served: Served) -> openai.OpenAI:
    return StrictOpenAI(base_url=served.base_url, api_key="none", max_retries=0)


def objects_in(folder: Path) -> list[Path]:
    return [path for path in (folder / "files").rglob("*") if path.is_file()]


def test_a_file_is_uploaded_listed_read_and_deleted(client):
    expiry = {"anchor": "created_at", "seconds": 3600}
    made = client.files.create(file=(NAME, TEXT), purpose="batch", expires_after=expiry)

    assert (made.bytes, made.filename, made.purpose) == (len(TEXT), NAME, "batch")
    assert made.expires_at == made.created_at + 3600
    assert client.files.retrieve(made.id) == made
    assert made in client.files.list(purpose="batch").data
    assert made not in client.files.list(purpose="vision").data
    assert client.files.content(made.id).content == TEXT
    assert client.files.delete(made.id).deleted
    with pytest.raises(openai.NotFoundError, match=made.id):
        client.files.retrieve(made.id)


def test_a_file_without_a_purpose_is_one_for_assistants(server):
    form = {"file": ("notes.txt", b"notes")}

    answer = httpx.post(f"{server.base_url}/files", files=form)

    assert answer.json()["purpose"] == "assistants"


def test_pages_of_files_come_newest_first(client):
    made = [client.files.create(file=b"x", purpose="evals").id for _ in range(5)]

    listed = [file.id for file in client.files.list(purpose="evals", limit=2)]

    assert listed[:5] == made[::-1]  # before those of other tests


@pytest.mark.parametrize(
    ("asked", "status", "text", "told"),
    [
        ("bytes=0-3", 206, b"0123", "bytes 0-3/10"),
        ("bytes=-2", 206, b"89", "bytes 8-9/10"),
        ("bytes=1-2,4-5", 200, b"0123456789", None),
    ],
)
def test_a_part_of_a_file_can_be_read(server, client, asked, status, text, told):
    made = client.files.create(file=("a.html", b"0123456789", "text/html"), purpose="user_data")
    url = f"{server.base_url}/files/{made.id}/content"
    response = httpx.get(url, headers={"range": asked})
    head = httpx.head(url, headers={"range": asked})

    assert response.status_code == head.status_code == status
    assert response.content == text
    assert head.headers["content-length"] == str(len(text))
    assert response.headers.get("content-range") == told
    assert response.headers["content-type"] == "text/html"
    assert response.headers["content-disposition"].startswith('attachment; filename="a.html"')
    assert response.headers["x-content-type-options"] == "nosniff"


def test_a_part_that_is_not_there_is_refused(server, client):
    made = client.files.create(file=b"0123456789", purpose="user_data")
    url = f"{server.base_url}/files/{made.id}/content"
    behind = httpx.get(url, headers={"range": "bytes=10-"})
    changed = httpx.get(url, headers={"range": "bytes=0-3", "if-range": '"another"'})

    assert behind.status_code == 416
    assert behind.headers["content-range"] == "bytes */10"
    assert behind.json()["error"]["code"] == "range_not_satisfiable"
    assert (changed.status_code, changed.content) == (200, b"0123456789")


def test_mistakes_are_named(client):
    with pytest.raises(openai.BadRequestError) as unknown:
        client.files.create(file=b"x", purpose="bogus")
    with pytest.raises(openai.BadRequestError) as empty:
        client.files.create(file=b"", purpose="batch")
    with pytest.raises(openai.BadRequestError) as other_type:
        client.files.create(file=("a.pdf", b"x"), purpose="fine-tune")
    with pytest.raises(openai.BadRequestError) as cursor:
        client.files.list(after="file-none")
    with pytest.raises(openai.NotFoundError) as missing:
        client.files.content("file-none")

    wrongs = (unknown, empty, other_type, cursor)
    assert [error.value.param for error in wrongs] == ["purpose", "file", "file", "after"]
    assert not client.files.list(purpose="fine-tune").data
    assert "file-none" in missing.value.message


def test_a_file_over_the_limit_is_refused_and_leaves_nothing(tmp_path):
    environment = {"LLM_BACKEND_UPLOAD_LIMIT_BYTES": "5000000"}
    with serve(tmp_path, *NO_MODEL, environment=environment) as served, client_of(served) as client:
        kept = client.files.create(file=b"x" * 5_000_000, purpose="batch")
        with pytest.raises(openai.APIStatusError) as over:
            client.files.create(file=b"x" * 5_000_001, purpose="batch")
        client.files.delete(kept.id)

    assert over.value.status_code == 413
    assert objects_in(tmp_path) == []


def test_a_large_file_is_never_held(tmp_path):
    piece, pieces = b"x" * 1_000_000, 150

    def form() -> Iterator[bytes]:
        yield b'--b\r\ncontent-disposition: form-data; name="purpose"\r\n\r\nbatch\r\n--b\r\n'
        yield b'content-disposition: form-data; name="file"; filename="a"\r\n\r\n'
        yield from [piece] * pieces
        yield b"\r\n--b--\r\n"

    with serve(tmp_path, *NO_MODEL) as served, client_of(served) as client:
        client.files.create(file=b"x", purpose="batch")
        before = largest_bytes(served)
        made = httpx.post(
            f"{served.base_url}/files",
            content=form(),
            headers={"content-type": "multipart/form-data; boundary=b"},
            timeout=60,
        ).json()
        with client.files.with_streaming_response.content(made["id"]) as response:
            size = sum(map(len, response.iter_bytes()))
        after = largest_bytes(served)

    assert made["bytes"] == size == len(piece) * pieces
    assert after - before < 60_000_000


def largest_bytes(served: Served) -> int:
    """The most that the process has held so far."""
    status = Path(f"/proc/{served.process.pid}/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) * 1024


def test_files_outlive_a_restart(tmp_path):
    with serve(tmp_path, *NO_MODEL) as served, client_of(served) as client:
        made = client.files.create(file=(NAME, TEXT), purpose="batch")

    with serve(tmp_path, *NO_MODEL) as served, client_of(served) as client:
        listed = client.files.list().data
        text = client.files.content(made.id).content

    assert listed == [made]
    assert text == TEXT
    assert not list(tmp_path.rglob("*code*"))


def test_two_servers_share_files_on_one_database_and_one_bucket(
    postgresql_server: PostgresqlServer, s3_server: S3Server, tmp_path
):
    bucket = s3_server.new_bucket()
    environment = {
        **s3_server.environment,
        "DATABASE_URL": postgresql_server.new_database(),
        "LLM_BACKEND_OBJECT_STORE_URL": bucket,
    }
    with (
        serve(tmp_path / "one", *NO_MODEL, environment=environment) as one,
        serve(tmp_path / "two", *NO_MODEL, environment=environment) as two,
        client_of(one) as here,
        client_of(two) as there,
    ):
        made = here.files.create(file=b"x" * 9_000_000, purpose="batch")
        text = there.files.content(made.id).content
        objects = len(s3_server.names(bucket))
        there.files.delete(made.id)
        listed = here.files.list().data

    assert text == b"x" * 9_000_000
    assert objects == 3
    assert listed == []
    assert s3_server.names(bucket) == []


@pytest.mark.parametrize("is_killed", [True, False])
def test_an_upload_that_breaks_off_leaves_nothing(tmp_path, is_killed):
    async def send_some(served: Served) -> None:
        host, port = served.address.removeprefix("http://").split(":")
        _, writer = await asyncio.open_connection(host, int(port))
        writer.write(
            b"POST /v1/files HTTP/1.1\r\nhost: localhost\r\ncontent-length: 90000000\r\n"
            b"content-type: multipart/form-data; boundary=b\r\n\r\n--b\r\n"
            b'content-disposition: form-data; name="file"; filename="a"\r\n\r\n'
        )
        writer.write(b"x" * 9_000_000)
        await writer.drain()
        await asyncio.to_thread(wait_until, lambda: len(objects_in(tmp_path)) >= 2)
        if is_killed:
            served.process.kill()
            served.process.wait()
        writer.close()

    with serve(tmp_path, *NO_MODEL) as served:
        asyncio.run(send_some(served))
        if not is_killed:
            wait_until(lambda: objects_in(tmp_path) == [])
    with serve(tmp_path, *NO_MODEL) as served, client_of(served) as client:
        listed = client.files.list().data
    are_left = objects_in(tmp_path) != []
    make_due(tmp_path)
    with serve(tmp_path, *NO_MODEL):
        wait_until(lambda: objects_in(tmp_path) == [])

    assert listed == []
    assert are_left == is_killed


def make_due(folder: Path) -> None:
    """As if the time had passed that others might still need to go on writing."""
    with closing(sqlite3.connect(folder / "llm-backend.sqlite3")) as database, database:
        database.execute("UPDATE orphans SET due_at = 0")


def test_an_object_store_that_is_down_is_load_and_not_a_bug(tmp_path):
    (tmp_path / "files").write_text("no folder")
    with serve(tmp_path, *NO_MODEL) as served, client_of(served) as client:
        with pytest.raises(openai.InternalServerError) as down:
            client.files.create(file=b"x", purpose="batch")
        listed = client.files.list().data

    assert down.value.status_code == 503
    assert down.value.response.headers["retry-after"]
    assert "no folder" not in down.value.message
    assert listed == []


def test_missing_blobs_are_an_error_before_the_first_byte(tmp_path):
    with serve(tmp_path, *NO_MODEL) as served, client_of(served) as client:
        made = client.files.create(file=b"x", purpose="batch")
        for path in objects_in(tmp_path):
            os.unlink(path)
        with pytest.raises(openai.InternalServerError) as gone:
            client.files.content(made.id)

    assert (gone.value.status_code, gone.value.code) == (500, "content_missing")
