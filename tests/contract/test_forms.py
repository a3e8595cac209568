"""Forms are read as streams: fields in any order, checked by name; the file is never held."""

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response
from starlette.testclient import TestClient
from starlette.types import Message

from llm_backend.contract import Document
from llm_backend.contract.body import BodyLimits
from llm_backend.contract.forms.form import Form, FormCheck
from llm_backend.contract.forms.multipart import events
from llm_backend.contract.request import ApiRequest
from llm_backend.contract.request_validation import RequestChecks
from llm_backend.contract.validation import Validators
from llm_backend.errors import InvalidRequest

FILES = "/v1/files"
FORM = {"content-type": "multipart/form-data; boundary=b"}
LIMIT_BYTES = 3_000_000

PURPOSE = b'--b\r\ncontent-disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
FILE = (
    b'--b\r\ncontent-disposition: form-data; name="file"; filename="a.txt"\r\n'
    b"content-type: Text/Plain; charset=utf-8\r\n\r\nHello\r\n--\r\n--bo\r\n"
)
END = b"--b--\r\n"


async def read(_services: Any, request: ApiRequest) -> Response:
    """Returns the form's fields and the pieces of its file."""
    assert request.form is not None
    part = await request.form.file("file", limit_bytes=LIMIT_BYTES)
    pieces = [piece async for piece in part.pieces]
    fields = await request.form.fields()
    told = {
        "filename": part.filename,
        "media_type": part.media_type,
        "text": b"".join(pieces)[:100].decode(),
        "size": sum(map(len, pieces)),
    }
    return JSONResponse({**told, "fields": dict(fields)})


@pytest.fixture(scope="module")
def form_client(client_for: Callable[..., TestClient]) -> Iterator[TestClient]:
    with client_for(read, limits=BodyLimits(upload_bytes=LIMIT_BYTES)) as client:
        yield client


def send(client: TestClient, *parts: bytes, **headers: str) -> Any:
    return client.post(FILES, content=b"".join(parts), headers={**FORM, **headers})


@pytest.mark.parametrize("parts", [(PURPOSE, FILE), (FILE, PURPOSE)])
def test_a_form_may_have_its_fields_in_any_order(form_client, parts):
    told = send(form_client, *parts, END).json()

    assert told["filename"] == "a.txt"
    assert told["media_type"] == "text/plain"
    assert told["text"] == "Hello\r\n--\r\n--bo"
    assert told["fields"] == {"purpose": "batch"}


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64])
def test_a_form_may_come_in_pieces_of_any_size(form_client, size):
    body = FILE + PURPOSE + END
    pieces = (body[start : start + size] for start in range(0, len(body), size))

    told = form_client.post(FILES, content=pieces, headers=FORM).json()

    assert told["text"] == "Hello\r\n--\r\n--bo"


def test_fields_have_the_types_of_the_document(form_client):
    expiry = {"expires_after[anchor]": "created_at", "expires_after[seconds]": "3600"}

    told = form_client.post(FILES, files={"file": b"x"}, data={"purpose": "batch", **expiry})

    assert told.json()["fields"]["expires_after"] == {"anchor": "created_at", "seconds": 3600}


def test_a_name_in_utf_8_is_kept(form_client):
    told = send(form_client, FILE.replace(b"a.txt", "naïve 文.txt".encode()), PURPOSE, END)

    assert told.json()["filename"] == "naïve 文.txt"


@pytest.mark.parametrize("kind", [b"nonsense", b"a/b/c", b"text/\xc3\xbc", b""])
def test_an_invalid_media_type_becomes_octet_stream(form_client, kind):
    told = send(form_client, FILE.replace(b"Text/Plain", kind), PURPOSE, END)

    assert told.json()["media_type"] == "application/octet-stream"


@pytest.mark.parametrize(
    ("parts", "param"),
    [
        ((PURPOSE, END), "file"),
        ((END,), "file"),
        ((FILE, PURPOSE.replace(b"batch", b"bogus"), END), "purpose"),
        ((FILE, PURPOSE.replace(b"batch", b"\xff"), END), "purpose"),
        ((FILE, PURPOSE.replace(b"batch", b"a\x00"), END), "purpose"),
        ((FILE, PURPOSE.replace(b"batch", b"x" * 70_000), END), "purpose"),
        ((FILE, PURPOSE, PURPOSE, END), "purpose"),
        ((FILE, PURPOSE, FILE, END), "file"),
        ((FILE, PURPOSE, PURPOSE.replace(b"purpose", b"other"), END), "other"),
        ((FILE.replace(b"Hello\r\n--\r\n--bo", b""), PURPOSE, END), "file"),
        ((FILE.replace(b'; filename="a.txt"', b""), PURPOSE, END), "file"),
        ((FILE.replace(b"a.txt", b""), PURPOSE, END), "file"),
        ((FILE.replace(b"a.txt", b"a\x01b"), PURPOSE, END), "file"),
        ((FILE.replace(b"a.txt", b"a" * 600), PURPOSE, END), "file"),
    ],
)
def test_a_wrong_field_is_named(form_client, parts, param):
    response = send(form_client, *parts)

    assert response.status_code == 400
    assert response.json()["error"]["param"] == param


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"nonsense",
        FILE,
        FILE + PURPOSE,
        (FILE + PURPOSE + END).replace(b"form-data; name", b"attachment; name"),
        (FILE + PURPOSE + END).replace(b'name="purpose"', b"x=y"),
        (FILE + PURPOSE + END).replace(b"content-type", b"content-transfer-encoding"),
        (FILE + PURPOSE + END).replace(b"a.txt", b"\xff"),
        (FILE + PURPOSE + END).replace(b"a.txt", b"a" * 10_000),
        PURPOSE.replace(b"purpose", b"x") * 101 + END,
    ],
)
def test_malformed_forms_are_refused(form_client, body):
    response = send(form_client, body)

    assert response.status_code == 400
    assert response.json()["error"]["message"]


@pytest.mark.parametrize(
    "given", ["multipart/form-data", f"multipart/form-data; boundary={'b' * 71}"]
)
def test_a_form_needs_a_boundary(form_client, given):
    response = send(form_client, FILE, PURPOSE, END, **{"content-type": given})

    assert response.json()["error"]["code"] == "invalid_multipart"


def test_a_form_cannot_be_sent_as_anything_else(form_client):
    unnamed = form_client.build_request("POST", FILES, content=b"{}")
    unnamed.headers.pop("content-type", None)

    assert form_client.post(FILES, json={}).status_code == 415
    assert form_client.send(unnamed).status_code == 415


def test_a_file_of_exactly_the_limit_is_accepted(form_client):
    whole = FILE.replace(b"Hello", b"x" * (LIMIT_BYTES - len(b"\r\n--\r\n--bo")))

    assert send(form_client, whole, PURPOSE, END).json()["size"] == LIMIT_BYTES


async def test_a_file_is_passed_on_piece_by_piece():
    given = taken = most_held = 0

    async def body() -> AsyncIterator[bytes]:
        nonlocal given
        for piece in (FILE[:-10], *[b"x" * 65536] * 50, b"\r\n" + END):
            given += len(piece)
            yield piece

    async for event in events(body(), b"b"):
        taken += len(event) if isinstance(event, bytes) else 0
        most_held = max(most_held, given - taken)

    assert taken > 50 * 65536
    assert most_held < 2 * 65536


@pytest.mark.parametrize("is_announced", [True, False])
@pytest.mark.parametrize("more_bytes", [1, 2_000_000])
def test_a_file_over_the_limit_is_refused(form_client, is_announced, more_bytes):
    body = FILE.replace(b"Hello", b"x" * (LIMIT_BYTES + more_bytes)) + PURPOSE + END

    response = form_client.post(FILES, content=body if is_announced else iter([body]), headers=FORM)

    assert response.status_code == 413
    assert response.json()["error"]["code"] == "request_too_large"


async def test_a_wrong_field_before_the_file_is_refused_before_the_file_is_read(checks):
    form = Form(http_of(PURPOSE.replace(b"batch", b"bogus") + FILE, b"not read"), checks)

    with pytest.raises(InvalidRequest, match="purpose"):
        await form.file("file", limit_bytes=LIMIT_BYTES)


def http_of(*pieces: bytes) -> HttpRequest:
    """A request whose body's last piece must not be asked for."""
    left = list(pieces)

    async def receive() -> Message:
        assert len(left) > 1
        return {"type": "http.request", "body": left.pop(0), "more_body": True}

    headers = [(b"content-type", FORM["content-type"].encode())]
    return HttpRequest({"type": "http", "method": "POST", "headers": headers}, receive)


@pytest.fixture
def checks(document: Document, validators: Validators) -> FormCheck:
    every = RequestChecks(document, validators, BodyLimits(), check_relayed=True)
    found = every.form("createFile")
    assert found is not None
    return found
