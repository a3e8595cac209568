"""Uploads through the official client: parts in any order, joined, cancelled, across a restart."""

import hashlib

import openai
import pytest

from tests.live.test_files import NO_MODEL, client_of, objects_in
from tests.serving import serve

TEXT = bytes(range(256)) * 1000


def begin(client: openai.OpenAI, size: int = len(TEXT)) -> str:
    upload = client.uploads.create(
        bytes=size, filename="../a.jsonl", mime_type="text/jsonl; charset=utf-8", purpose="batch"
    )
    assert (upload.status, upload.file) == ("pending", None)
    assert upload.expires_at == upload.created_at + 3600
    return upload.id


def test_parts_that_came_in_any_order_become_a_file(client):
    upload_id = begin(client)
    second = client.uploads.parts.create(upload_id, data=TEXT[100_000:])
    first = client.uploads.parts.create(upload_id, data=TEXT[:100_000])
    done = client.uploads.complete(
        upload_id, part_ids=[first.id, second.id], md5=hashlib.md5(TEXT).hexdigest()
    )

    assert first.upload_id == upload_id
    assert done.status == "completed"
    assert (done.file.filename, done.file.bytes) == ("../a.jsonl", len(TEXT))
    content = client.files.content(done.file.id)
    assert content.content == TEXT
    assert content.response.headers["content-type"] == "text/jsonl"
    assert client.files.retrieve(done.file.id) == done.file


def test_the_clients_own_way_to_send_a_file_in_parts(client, tmp_path):
    (tmp_path / "a.txt").write_bytes(TEXT)
    done = client.uploads.upload_file_chunked(
        file=tmp_path / "a.txt", mime_type="text/plain", purpose="assistants", part_size=70_000
    )

    assert client.files.content(done.file.id).content == TEXT


@pytest.mark.parametrize("purpose", ["evals", "user_data"])
def test_upload_makes_a_file_of_any_purpose_of_the_client(client, purpose):
    upload = client.uploads.create(
        bytes=1, filename="a.txt", mime_type="text/plain", purpose=purpose
    )
    part = client.uploads.parts.create(upload.id, data=b"x")
    done = client.uploads.complete(upload.id, part_ids=[part.id])

    assert (upload.purpose, done.file.purpose) == (purpose, purpose)


def test_an_upload_goes_on_after_a_restart(tmp_path):
    with serve(tmp_path, *NO_MODEL) as served, client_of(served) as client:
        upload_id = begin(client)
        first = client.uploads.parts.create(upload_id, data=TEXT[:100_000])
        served.process.kill()
        served.process.wait()
    with serve(tmp_path, *NO_MODEL) as served, client_of(served) as client:
        second = client.uploads.parts.create(upload_id, data=TEXT[100_000:])
        done = client.uploads.complete(upload_id, part_ids=[first.id, second.id])
        text = client.files.content(done.file.id).content
        client.files.delete(done.file.id)

    assert text == TEXT
    assert objects_in(tmp_path) == []


def test_a_cancelled_upload_is_over(client):
    upload_id = begin(client)
    part = client.uploads.parts.create(upload_id, data=TEXT)
    cancelled = client.uploads.cancel(upload_id)

    assert cancelled.status == "cancelled"
    with pytest.raises(openai.ConflictError, match="cancelled"):
        client.uploads.complete(upload_id, part_ids=[part.id])
    with pytest.raises(openai.ConflictError):
        client.uploads.parts.create(upload_id, data=TEXT)


def test_mistakes_are_named(client):
    upload_id = begin(client)
    part = client.uploads.parts.create(upload_id, data=b"short")
    wrongs = {
        "part_ids": lambda: client.uploads.complete(upload_id, part_ids=[part.id]),
        "data": lambda: client.uploads.parts.create(upload_id, data=b""),
        "bytes": lambda: begin(client, size=9 * 1024**3),
        "purpose": lambda: client.uploads.create(
            bytes=1, filename="a", mime_type="text/plain", purpose="bogus"
        ),
        "filename": lambda: client.uploads.create(
            bytes=1, filename="a.txt", mime_type="text/plain", purpose="vision"
        ),
        "mime_type": lambda: client.uploads.create(
            bytes=1, filename="a", mime_type="nonsense", purpose="batch"
        ),
    }

    for param, attempt in wrongs.items():
        with pytest.raises(openai.BadRequestError) as wrong:
            attempt()
        assert wrong.value.param == param
    with pytest.raises(openai.NotFoundError, match="upload_none"):
        client.uploads.parts.create("upload_none", data=b"x")


def test_a_part_is_not_larger_than_the_upload(client):
    upload_id = begin(client, size=3)
    with pytest.raises(openai.APIStatusError, match="of 3 bytes") as large:
        client.uploads.parts.create(upload_id, data=b"abcd")
    part = client.uploads.parts.create(upload_id, data=b"abc")

    assert (large.value.status_code, large.value.param) == (413, "data")
    assert client.uploads.complete(upload_id, part_ids=[part.id]).file.bytes == 3


def test_parts_and_all_files_together_are_bounded(tmp_path):
    environment = {
        "LLM_BACKEND_PART_LIMIT_BYTES": "1024",
        "LLM_BACKEND_PARTS_LIMIT": "2",
        "LLM_BACKEND_FILES_LIMIT_BYTES": str(1024 * 1024),
    }
    with serve(tmp_path, *NO_MODEL, environment=environment) as served, client_of(served) as client:
        upload_id = begin(client)
        with pytest.raises(openai.APIStatusError) as large:
            client.uploads.parts.create(upload_id, data=b"x" * 1025)
        for _ in range(2):
            client.uploads.parts.create(upload_id, data=b"x" * 1024)
        with pytest.raises(openai.APIStatusError) as many:
            client.uploads.parts.create(upload_id, data=b"x")

        with pytest.raises(openai.APIStatusError) as full:
            client.files.create(file=b"x" * 1024 * 1024, purpose="batch")

    assert large.value.status_code == many.value.status_code == 413
    assert (full.value.status_code, full.value.code) == (413, "storage_full")
