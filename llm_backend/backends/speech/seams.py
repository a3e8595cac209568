"""Seams between the parts of a text that are read one by one. Pure."""

import struct

from llm_backend.engine.messages import SAMPLE_BYTES

_FADE_S = 0.005


def fade_ends(samples: bytes, rate_hz: int) -> bytes:
    """Returns signed 16-bit samples, little-endian, that begin and end at zero. Other ends would
    click, so they are faded within 5 ms."""
    count = min(round(rate_hz * _FADE_S), len(samples) // SAMPLE_BYTES // 2)
    if not count:
        return samples
    form, end = f"<{count}h", len(samples) - count * SAMPLE_BYTES
    first = struct.unpack_from(form, samples)
    last = struct.unpack_from(form, samples, end)
    faded = bytearray(samples)
    if first[0]:
        struct.pack_into(form, faded, 0, *_rise(first))
    if last[-1]:
        struct.pack_into(form, faded, end, *_rise(last[::-1])[::-1])
    return bytes(faded)


def _rise(values: tuple[int, ...]) -> list[int]:
    return [value * at // len(values) for at, value in enumerate(values)]
