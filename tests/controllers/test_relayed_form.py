"""Forms go where the model in them leads, byte for byte."""

import pytest

from tests.gateway import backend, gateway
from tests.upstream import Connection, FakeUpstream, Message

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"
MODEL = b'--B\r\nContent-Disposition: form-data; name="model"\r\n\r\n%b\r\n'
FILE = (
    b'--B\r\nContent-Disposition: form-data; name="file"; filename="model"\r\n'
    b"Content-Type: audio/wav\r\n\r\n%b\r\n"
)
PROMPT = b'--B\r\nContent-Disposition: form-data; name="prompt"\r\n\r\nname="model"\r\n'
END = b"--B--\r\n"
AUDIO = bytes(range(256)) * 4


def upload(
    *pieces: bytes, chunked: bool = False, path: bytes = b"/v1/audio/transcriptions"
) -> bytes:
    body = b"".join(pieces)
    head = (
        b"POST %b HTTP/1.1\r\nhost: relay\r\ncontent-type: multipart/form-data; boundary=B\r\n"
    ) % path
    if not chunked:
        return head + b"content-length: %d\r\n\r\n" % len(body) + body
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
    return head + b"transfer-encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n"


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize(
    "parts", [[MODEL % b"ears", FILE % AUDIO, END], [FILE % AUDIO, PROMPT, MODEL % b"ears", END]]
)
async def test_a_form_is_relayed_to_the_upstream_of_its_model(tmp_path, parts, chunked: bool):
    async with FakeUpstream(answer=OK) as a, FakeUpstream(answer=OK) as b:
        backends = [backend(a, "any"), backend(b, "b", "ears")]
        async with gateway(tmp_path, backends=backends) as served:
            answer = await served.ask(upload(*parts, chunked=chunked))

    assert answer.status == 200
    assert a.requests == []
    assert b.requests[0].body == b"".join(parts)


async def test_a_route_exchanges_the_models_name_in_a_form(tmp_path):
    async with FakeUpstream(answer=OK) as b:
        settings = {"backends": [backend(b, "b", "large-ears")], "routes": {"ears": "large-ears"}}
        async with gateway(tmp_path, **settings) as served:
            await served.ask(upload(MODEL % b"ears", FILE % AUDIO, END))

    sent = b.requests[0]
    assert sent.body == (MODEL % b"large-ears") + (FILE % AUDIO) + END
    assert sent.values(b"content-length") == [b"%d" % len(sent.body)]


@pytest.mark.parametrize(
    ("path", "is_found"), [(b"/v1/audio/transcriptions", True), (b"/v1/videos", False)]
)
async def test_a_late_model_is_found_where_the_form_may_be_answered_here(
    tmp_path, path: bytes, is_found: bool
):
    parts = FILE % (AUDIO * 200), MODEL % b"x", END
    async with FakeUpstream(answer=OK) as a, FakeUpstream(answer=OK) as b:
        settings = {
            "backends": [backend(a, "a", "x"), backend(b, "b", "y")],
            "operations": {"Audio": "b", "Videos": "b"},
        }
        async with gateway(tmp_path, **settings) as served:
            await served.ask(upload(*parts, path=path))

    asked, other = (a, b) if is_found else (b, a)
    assert other.requests == []
    assert asked.requests[0].body == b"".join(parts)


async def test_a_late_model_is_exchanged_too(tmp_path):
    async with FakeUpstream(answer=OK) as b:
        settings = {"backends": [backend(b, "b", "large-ears")], "routes": {"ears": "large-ears"}}
        async with gateway(tmp_path, **settings) as served:
            await served.ask(upload(FILE % (AUDIO * 400), MODEL % b"ears", END))

    sent = b.requests[0]
    assert sent.body == (FILE % (AUDIO * 400)) + (MODEL % b"large-ears") + END
    assert sent.values(b"content-length") == [b"%d" % len(sent.body)]


async def test_a_form_is_passed_on_while_it_comes(tmp_path):
    async def reads_some(_: Message, connection: Connection) -> None:
        await connection.reader.readexactly(100)  # the rest is still to come
        await connection.send(OK)

    raw = upload(MODEL % b"ears", FILE % AUDIO, END)
    fake = FakeUpstream(reads_bodies=False, answer=reads_some)
    async with (
        fake,
        gateway(tmp_path, backends=[backend(fake, "b", "ears")]) as served,
        served.client() as client,
    ):
        await client.send(raw[:-300])
        head = await client.head()

    assert head.status == 200


async def test_a_form_that_grows_too_large_is_refused_and_not_the_upstreams_failure(
    tmp_path, capsys
):
    async with FakeUpstream(answer=OK) as b:
        settings = {"backends": [backend(b, "b")], "upload_limit_bytes": 100_000}
        async with gateway(tmp_path, **settings) as served:
            parts = [MODEL % b"ears", FILE % (AUDIO * 300), END]
            path = b"/v1/videos"
            answer = await served.ask(upload(*parts, chunked=True, path=path))

    assert answer.status == 413
    assert "upstream_failed" not in capsys.readouterr().err


async def test_without_a_model_or_an_upstream_a_recording_is_a_501_with_the_remedy(tmp_path):
    async with gateway(tmp_path, backends=[]) as served:
        answer = await served.ask(upload(MODEL % b"ears", FILE % AUDIO, END))

    assert answer.status == 501
    assert b"add a Whisper file, a NeMo model or one that hears to `models`" in answer.body
