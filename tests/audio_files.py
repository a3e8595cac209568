"""Audio files, for tests that have them heard."""

import io
import random
import struct
import wave
from collections.abc import Sequence

__all__ = ["RATE_HZ", "float_wav_file", "wav_file"]

RATE_HZ = 16_000


def wav_file(seconds: float, *, amplitude: float = 0.1) -> bytes:
    """A WAV file of noise, one channel of 16-bit samples."""
    noise = random.Random(0)  # audio, no secret
    second = [round(noise.uniform(-1, 1) * amplitude * 32767) for _ in range(RATE_HZ)]
    data = struct.pack(f"<{RATE_HZ}h", *second)
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(RATE_HZ)
        writer.writeframes((data * (int(seconds) + 1))[: 2 * round(seconds * RATE_HZ)])
    return file.getvalue()


def float_wav_file(values: Sequence[float]) -> bytes:
    """A WAV file of 32-bit floats, one channel."""
    data = struct.pack(f"<{len(values)}f", *values)
    head = struct.pack("<HHIIHH", 3, 1, RATE_HZ, 4 * RATE_HZ, 4, 32)
    chunks = b"fmt " + struct.pack("<I", 16) + head + b"data" + struct.pack("<I", len(data)) + data
    return b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WAVE" + chunks
