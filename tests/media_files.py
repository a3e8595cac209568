"""Images and audio as files, as clients send them."""

import base64
import io
import wave

import numpy as np
from PIL import Image

__all__ = ["as_url", "image", "in_base64", "wav"]


def image(seed: int = 0, *, size: tuple[int, int] = (40, 30), format: str = "PNG") -> bytes:
    """Noise."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format)
    return file.getvalue()


def as_url(file: bytes, media_type: str = "image/png") -> str:
    """A file as a data: URL."""
    return f"data:{media_type};base64,{in_base64(file)}"


def in_base64(file: bytes) -> str:
    """A file as text."""
    return base64.b64encode(file).decode()


def wav(seconds: float = 1.0, *, pitch: float = 0.1, rate: int = 8000) -> bytes:
    """A tone."""
    samples = np.sin(np.arange(int(seconds * rate)) * pitch) * 20_000
    file = io.BytesIO()
    with wave.open(file, "wb") as written:
        written.setnchannels(1)
        written.setsampwidth(2)
        written.setframerate(rate)
        written.writeframes(samples.astype("<i2").tobytes())
    return file.getvalue()
