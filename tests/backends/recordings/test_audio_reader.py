"""The process that decodes recordings, on files that only some players make."""

import io
import subprocess
import sys
import tempfile
from typing import Any

import pytest

from llm_backend.backends.recordings.recording import Recording, RecordingLimits
from llm_backend.errors import InvalidRequest

av: Any = pytest.importorskip("av", reason="pip install 'llm-backend[audio]'")
RATE_HZ = 16_000
_SAMPLES = slice(21, 26)  # where the header of FLAC has the number of samples, in its last 36 bits


def encoded(
    container: str,
    codec: str,
    rate_hz: int,
    layout: str = "mono",
    seconds: int = 1,
    *,
    loudness: int = 0,
) -> bytes:
    """Returns silence, or noise."""
    import numpy as np

    file = io.BytesIO()
    with av.open(file, "w", format=container) as output:
        stream = output.add_stream(codec, rate=rate_hz, layout=layout)
        size = (1, rate_hz * (2 if layout == "stereo" else 1))
        samples = np.random.default_rng(0).integers(-loudness, loudness + 1, size, np.int16)
        frame = av.AudioFrame.from_ndarray(samples, format="s16", layout=layout)
        frame.sample_rate = rate_hz
        for second in range(seconds):
            frame.pts = second * rate_hz
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
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


async def test_recording_is_no_longer_for_its_silent_beginning():
    silence = encoded("adts", "aac", 16_000, seconds=3)
    noise = encoded("adts", "aac", 16_000, seconds=3, loudness=20_000)

    assert await decoded_s(silence + noise) == pytest.approx(6, abs=0.3)
    with pytest.raises(InvalidRequest, match="longer than this server's limit of 10 s"):
        await decoded_s(silence + noise * 3)


@pytest.mark.parametrize(
    ("container", "codec"),
    [
        ("flac", "flac"), ("ogg", "libopus"), ("adts", "aac"), ("mp4", "aac"),
        ("mov", "alac"), ("matroska", "libopus"), ("webm", "libopus"), ("aiff", "pcm_s16be"),
        ("caf", "pcm_s16be"), ("flv", "libmp3lame"), ("mpegts", "mp2"), ("mp3", "libmp3lame"),
        ("avi", "libmp3lame"), ("au", "pcm_s16be"), ("w64", "pcm_s16le"),
        ("wav", "pcm_f32le"), ("tta", "tta"), ("ac3", "ac3"),
    ],
)  # fmt: skip
async def test_recording_is_decoded_from_each_container(container, codec):
    data = encoded(container, codec, 48_000)

    assert await decoded_s(data) == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("container", ["flac", "adts"])
async def test_recording_without_a_length_is_decoded_no_further_than_the_limit(container):
    if container == "flac":
        flac = bytearray(encoded("flac", "flac", 48_000, seconds=3600))
        flac[_SAMPLES] = bytes([flac[_SAMPLES][0] & 0xF0, 0, 0, 0, 0])  # 0 is an unknown number
        bomb = bytes(flac)
    else:
        bomb = encoded("adts", "aac", 48_000) * 1500
    assert len(bomb) < 10**6  # an hour, or half of one

    with pytest.raises(InvalidRequest, match="longer than this server's limit of 10 s"):
        await decoded_s(bomb)


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
