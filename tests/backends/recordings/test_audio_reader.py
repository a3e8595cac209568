"""The process that decodes recordings, on files that only some players make."""

import io
import subprocess
import sys
import tempfile
from typing import Any

import pytest

from llm_backend.backends.recordings.recording import Recording, RecordingLimits

av: Any = pytest.importorskip("av", reason="pip install 'llm-backend[audio]'")
RATE_HZ = 16_000


def encoded(container: str, codec: str, rate_hz: int, layout: str = "mono") -> bytes:
    """Returns a second of silence."""
    import numpy as np

    file = io.BytesIO()
    with av.open(file, "w", format=container) as output:
        stream = output.add_stream(codec, rate=rate_hz, layout=layout)
        samples = np.zeros((1, rate_hz * (2 if layout == "stereo" else 1)), np.int16)
        frame = av.AudioFrame.from_ndarray(samples, format="s16", layout=layout)
        frame.sample_rate, frame.pts = rate_hz, 0
        for part in (frame, None):
            output.mux(stream.encode(part))
    return file.getvalue()


async def decoded_s(data: bytes) -> float:
    with tempfile.TemporaryFile() as file:
        file.write(data)
        limits = RecordingLimits(bytes=10**6, seconds=10)
        async with Recording(file=file, field="file", limits=limits).decode() as chunks:
            return sum([len(one) async for one in chunks]) / 2 / RATE_HZ


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (("mp3", "libmp3lame", 44_100), ("mp3", "libmp3lame", 44_100, "stereo")),
        (("mp3", "libmp3lame", 44_100), ("mp3", "libmp3lame", 22_050)),
    ],
    ids=["channels", "rate"],
)
async def test_recording_whose_form_changes_is_decoded_to_its_end(first, second):
    assert await decoded_s(encoded(*first) + encoded(*second)) == pytest.approx(2, abs=0.2)


def test_process_imports_little_before_it_decodes():
    """A turn of a realtime session waits for its start."""
    code = "import sys, llm_backend.backends.recordings.audio_reader; print(*sys.modules)"
    imported = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    names = imported.stdout.decode().split()

    assert [one for one in names if one.startswith("llm_backend.")] == [
        "llm_backend.backends",
        "llm_backend.backends.recordings",
        "llm_backend.operating_system",
        "llm_backend.backends.recordings.audio_reader",
    ]
    assert "asyncio" not in names
