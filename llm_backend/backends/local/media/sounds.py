"""Duration of a sound file, read from its headers without decoding. Pure."""

import re
import struct

__all__ = ["BadSound", "seconds_of"]

_PCM, _FLOAT, _EXTENSIBLE = 1, 3, 0xFFFE
_HEAD = 4  # bytes of an MP3 frame's header
_TAG = 10  # bytes of the header of an ID3 tag
_SAMPLES = {3: 1152, 2: 576, 0: 576}  # of a frame, by MPEG's version (1, 2, 2.5)
_RATES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}
_KBITS = {  # of layer III, by its four bits
    3: (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    2: (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    0: (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
# A frame begins with eleven one bits, its version, layer III, and a checksum bit; then its bit rate
# and its sample rate, of which some are invalid. Files are untrusted, and may consist of nothing
# but beginnings of frames.
_VERSIONS = bytes(0xE2 | version << 3 | check for version in _RATES for check in (0, 1))
_SPEEDS = bytes(kbits << 4 | low for kbits in range(1, 15) for low in range(12))
_FRAME = re.compile(b"\xff[%b][%b]." % (re.escape(_VERSIONS), re.escape(_SPEEDS)), re.DOTALL)


class BadSound(Exception):
    """Invalid sound; the message is a sentence."""


def seconds_of(data: bytes, format: str) -> float:
    """Returns the duration of a WAV or MP3 file in seconds. Raises `BadSound`."""
    seconds = _wav(data) if format == "wav" else _mp3(data)
    if seconds <= 0:
        raise BadSound("There is nothing to be heard in it.")
    return seconds


def _wav(data: bytes) -> float:
    if data[:4] != b"RIFF" or data[8:12] != b"WAVE":
        raise BadSound("This is no WAV file.")
    place, bytes_a_second = 12, 0
    while place + 8 <= len(data):
        name, size = data[place : place + 4], int.from_bytes(data[place + 4 : place + 8], "little")
        place += 8
        if name == b"fmt ":
            bytes_a_second = _rate(data[place : place + size])
        if name == b"data" and bytes_a_second:
            return min(size, len(data) - place) / bytes_a_second
        place += size + size % 2
    raise BadSound("The WAV file is damaged: it lacks its format or its samples.")


def _rate(format: bytes) -> int:
    """Returns the bytes per second."""
    if len(format) < 16:
        raise BadSound("The WAV file is damaged: its format is cut off.")
    kind, channels, rate, _, _, bits = struct.unpack_from("<HHIIHH", format)
    if kind not in (_PCM, _FLOAT, _EXTENSIBLE):
        raise BadSound(f"The WAV file holds samples of kind {kind}; PCM and float are read.")
    found: int = channels * rate * bits // 8
    if not found:
        raise BadSound("The WAV file is damaged: its seconds have no samples.")
    return found


def _mp3(data: bytes) -> float:
    """Sums the durations of all consecutive frames, from the first one on."""
    place, seconds = _first_frame(data), 0.0
    while place + _HEAD <= len(data):
        size, lasts = _frame(data, place)
        if not size:
            place = _next_frame(data, place + 1)
            continue
        seconds += lasts
        place += size
    return seconds


def _first_frame(data: bytes) -> int:
    """Returns the position after the ID3 tag, with which most files begin."""
    place = 0
    if data[:3] == b"ID3" and len(data) >= _TAG:
        size = 0
        for byte in data[6:_TAG]:
            size = size << 7 | byte & 0x7F
        place = _TAG + size
    found = _next_frame(data, place)
    if found >= len(data):
        raise BadSound("This is no MP3 file.")
    return found


def _next_frame(data: bytes, place: int) -> int:
    """Returns the position of the next frame; the end of the file if there is none."""
    found = _FRAME.search(data, place)
    return len(data) if found is None else found.start()


def _frame(data: bytes, place: int) -> tuple[int, float]:
    """Returns the bytes and the seconds of the frame at a position; zeros if there is none."""
    if _FRAME.match(data, place) is None:
        return 0, 0.0
    version, kbits, rate = data[place + 1] >> 3 & 3, data[place + 2] >> 4, data[place + 2] >> 2 & 3
    samples, hertz = _SAMPLES[version], _RATES[version][rate]
    padding = data[place + 2] >> 1 & 1
    return samples // 8 * _KBITS[version][kbits] * 1000 // hertz + padding, samples / hertz
