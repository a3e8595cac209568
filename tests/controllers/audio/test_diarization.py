"""Speakers asked for where nothing tells them apart."""

import json
import sys

import pytest

from llm_backend.access.limits.admission_control import AdmissionControl
from tests.gateway import gateway
from tests.tone_speakers import tones_file, write_speakers
from tests.upstream import Message
from tests.whisper_models import require_transcription, write_whisper


def form() -> bytes:
    fields = {"model": "hello", "response_format": "diarized_json"}
    parts = [
        f'--b\r\ncontent-disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
        for name, value in fields.items()
    ]
    head = b'--b\r\ncontent-disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'
    body = b"".join((*parts, head, tones_file([(400, 1)]), b"\r\n--b--\r\n"))
    return (
        b"POST /v1/audio/transcriptions HTTP/1.1\r\nhost: relay\r\n"
        b"content-type: multipart/form-data; boundary=b\r\ncontent-length: %d\r\n\r\n" % len(body)
    ) + body


@pytest.mark.parametrize(
    ("has_model", "status", "named"),
    [(False, 400, "segmentation.onnx and embedding.onnx"), (True, 501, "llm-backend[voices]")],
)
async def test_a_missing_model_or_library_of_speakers_is_named(
    tmp_path, monkeypatch, has_model, status, named
):
    require_transcription()
    paths = [write_whisper(tmp_path / "hello.bin")]
    if has_model:
        paths.append(write_speakers(tmp_path / "speakers").parent)
        monkeypatch.setitem(sys.modules, "sherpa_onnx", None)
    models = [{"path": str(one), "load": "demand"} for one in paths]
    async with gateway(tmp_path, models=models) as server:
        answer: Message = await server.ask(form())
        listed = await server.ask(b"GET /v1/models HTTP/1.1\r\nhost: relay\r\n\r\n")

    error = json.loads(answer.body)["error"]
    assert (answer.status, error["param"]) == (status, "response_format")
    assert named in error["message"]
    assert [one["id"] for one in json.loads(listed.body)["data"]] == ["hello"]


async def test_model_that_the_caller_may_not_use_labels_no_speakers(tmp_path, monkeypatch):
    require_transcription()
    paths = [write_whisper(tmp_path / "hello.bin"), write_speakers(tmp_path / "speakers").parent]
    monkeypatch.setattr(AdmissionControl, "may_use", lambda _self, _caller, model: model == "hello")
    models = [{"path": str(one), "load": "demand"} for one in paths]
    async with gateway(tmp_path, models=models) as server:
        answer: Message = await server.ask(form())

    error = json.loads(answer.body)["error"]
    assert (answer.status, error["param"]) == (400, "response_format")
    assert "none is served" in error["message"]
