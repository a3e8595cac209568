"""Audio encoder: every format is decoded to the audio that went in."""

import itertools
import math
import wave
from array import array
from io import BytesIO

import pytest

from tests.voice import decode_audio, require_voice

RATE_HZ = 22_050
SECONDS = 3.0
TONE_HZ = 440
FORMATS = ("mp3", "opus", "aac", "flac", "wav", "pcm")


def tone() -> bytes:
    wave = (math.sin(2 * math.pi * TONE_HZ * n / RATE_HZ) for n in range(int(SECONDS * RATE_HZ)))
    return array("h", [round(10_000 * one) for one in wave]).tobytes()


def encoded(format: str, *, tempo: float = 1.0, piece: int = 10_000) -> list[bytes]:
    require_voice()
    from llm_backend.backends.speech.audio_encoder import AudioEncoder

    encoder, pcm = AudioEncoder(format, rate_hz=RATE_HZ, tempo=tempo), tone()
    pieces = [encoder.encode(pcm[at : at + piece]) for at in range(0, len(pcm), piece)]
    return [*pieces, encoder.finish()]


def frequency(samples: array) -> float:
    """Crossings of zero, upwards, in a second."""
    middle = samples[24_000:48_000]
    return sum(a < 0 <= b for a, b in itertools.pairwise(middle))


def largest_step(samples: array) -> int:
    return max(abs(b - a) for a, b in itertools.pairwise(samples))


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("tempo", [1.0, 0.25, 0.55, 1.5])
def test_the_audio_is_the_same_in_every_format_and_at_every_tempo(format, tempo):
    seconds, pcm = decode_audio(b"".join(encoded(format, tempo=tempo)), format)
    samples = array("h", pcm)

    assert seconds == pytest.approx(SECONDS / tempo, abs=0.12)
    assert frequency(samples) == pytest.approx(TONE_HZ, abs=3)
    assert max(samples) == pytest.approx(10_000, rel=0.3)
    # Of a tone without clicks 10,000 * 2 pi * 440 / 24,000 = 1,152.
    assert largest_step(samples[4_800:-4_800]) < 2_000


@pytest.mark.parametrize("tempo", [0.25, 0.45, 1.5, 4.0])
@pytest.mark.parametrize("samples", [20, 150, 800])
def test_short_audio_is_kept_at_every_tempo(samples, tempo):
    require_voice()
    from llm_backend.backends.speech.audio_encoder import AudioEncoder

    encoder = AudioEncoder("pcm", rate_hz=RATE_HZ, tempo=tempo)
    pcm = encoder.encode(tone()[: samples * 2]) + encoder.finish()

    assert len(pcm) / 2 / 24_000 >= samples / RATE_HZ / tempo


@pytest.mark.parametrize("format", FORMATS)
def test_bytes_leave_before_the_end(format):
    *pieces, _ = encoded(format)

    assert sum(map(len, pieces[:5])) > 0
    assert sum(bool(one) for one in pieces) > len(pieces) / 4


def test_a_stream_of_wav_is_read_by_other_readers():
    with wave.open(BytesIO(b"".join(encoded("wav")))) as file:
        assert (file.getframerate(), file.getsampwidth(), file.getnchannels()) == (24_000, 2, 1)
        assert len(file.readframes(80_000)) == 2 * 72_000
