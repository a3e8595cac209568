"""Transcription: limits, in this process."""

import json

from tests.audio_files import wav_file
from tests.gateway import gateway
from tests.whisper_models import require_transcription, write_whisper


def form(seconds: float, **fields: str) -> bytes:
    parts = [
        f'--b\r\ncontent-disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
        for name, value in {"model": "hello", **fields}.items()
    ]
    head = b'--b\r\ncontent-disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'
    body = b"".join((*parts, head, wav_file(seconds), b"\r\n--b--\r\n"))
    return (
        b"POST /v1/audio/transcriptions HTTP/1.1\r\nhost: relay\r\n"
        b"content-type: multipart/form-data; boundary=b\r\ncontent-length: %d\r\n\r\n" % len(body)
    ) + body


async def test_recordings_beyond_the_concurrency_wait_and_then_are_a_503(tmp_path):
    require_transcription()
    model = {"path": str(write_whisper(tmp_path / "hello.bin")), "load": "demand"}
    limits = {"transcription_concurrency": 1, "queue_deadline_s": 0.05}
    async with gateway(tmp_path, models=[model], **limits) as server:
        async with server.client() as first:
            await first.send(form(500, stream="true"))
            assert (await first.head()).status == 200
            refused = await server.ask(form(1))
            first.cut()
        for _ in range(100):  # until the server has noticed
            if (answer := await server.ask(form(1))).status == 200:
                break

    error = json.loads(refused.body)["error"]
    assert (refused.status, error["code"]) == (503, "overloaded")
    assert refused.values(b"retry-after") == [b"1"]
    assert answer.status == 200
