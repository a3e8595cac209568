"""Frames of each format become the same samples."""

from array import array

import pytest

from llm_backend.controllers.realtime.audio_formats import audio_format
from llm_backend.controllers.realtime.turn_detection import detector_frame

SAMPLES = [0, 100, -100, 1000, -1000, 20_000, -20_000, 32_000]


@pytest.mark.parametrize(("type", "encoder"), [("audio/pcmu", "mulaw"), ("audio/pcma", "alaw")])
def test_telephone_samples_are_decoded_as_they_were_encoded(type, encoder):
    av = pytest.importorskip("av")
    codec = av.CodecContext.create(f"pcm_{encoder}", "w")
    codec.sample_rate, codec.layout, codec.format = 8000, "mono", "s16"
    frame = av.AudioFrame(format="s16", layout="mono", samples=len(SAMPLES))
    frame.planes[0].update(array("h", SAMPLES).tobytes())
    frame.sample_rate = 8000
    encoded = b"".join(bytes(one) for one in codec.encode(frame))

    decoded = array("h", detector_frame(encoded, audio_format({"type": type})))

    assert list(decoded) == pytest.approx(SAMPLES, rel=0.04, abs=8)


def test_samples_of_24_khz_become_a_third():
    frame = array("h", [3, 6, 9, -3, -3, -3]).tobytes()

    decoded = array("h", detector_frame(frame, audio_format({"type": "audio/pcm"})))

    assert list(decoded) == [6, -3]
