import struct
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_backend.backends.local.media.audio_duration import BadAudio, read_duration_s
from tests.media_files import wav

FRAME = bytes([0xFF, 0xFB, 0x90, 0x00])  # MPEG 1, layer III, 128 kbit/s, 44.1 kHz
FRAME_BYTES = 417


def mp3(frames: int, *, before: bytes = b"") -> bytes:
    return before + FRAME.ljust(FRAME_BYTES, b"\0") * frames


def test_wav_duration_is_that_of_its_samples():
    assert read_duration_s(wav(1.5), "wav") == pytest.approx(1.5)


def test_truncated_wav_duration_is_that_of_present_samples():
    data = bytearray(wav(1))
    struct.pack_into("<I", data, 40, 0xFFFF_FFFF)

    assert read_duration_s(bytes(data), "wav") == pytest.approx(1)


@pytest.mark.parametrize("before", [b"", b"ID3\x04\0\0\0\0\x01\x00" + b"\xff" * 128, b"garbage"])
def test_mp3_duration_is_that_of_its_frames(before):
    assert read_duration_s(mp3(100, before=before), "mp3") == pytest.approx(100 * 1152 / 44100)


@pytest.mark.parametrize(
    ("data", "format"),
    [
        (b"", "wav"),
        (b"", "mp3"),
        (b"RIFF\0\0\0\0WAVE", "wav"),
        (b"RIFF\0\0\0\0WAVEfmt \x04\0\0\0\x01\0\x01\0data\x02\0\0\0\0\0", "wav"),
        (wav()[:20] + b"\x02" + wav()[21:], "wav"),  # ADPCM
        (wav(0), "wav"),
        (wav(), "mp3"),
        (mp3(3), "wav"),
    ],
)
def test_invalid_audio_is_refused(data, format):
    with pytest.raises(BadAudio):
        read_duration_s(data, format)


@given(st.binary(max_size=300), st.sampled_from(["wav", "mp3"]))
def test_any_bytes_have_a_duration_or_are_refused(data, format):
    for begun in (data, b"RIFF\0\0\0\0WAVEfmt " + data, FRAME + data):
        try:
            assert read_duration_s(begun, format) > 0
        except BadAudio:
            continue


def test_mp3_of_frame_headers_takes_linear_time():
    began_s = time.process_time()
    with pytest.raises(BadAudio):
        read_duration_s(b"\xff" * (4 << 20), "mp3")

    assert time.process_time() - began_s < 1  # several, a place at a time
