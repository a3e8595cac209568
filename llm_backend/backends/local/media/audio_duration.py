"""Duration of an audio file, read from its headers without decoding, and a check for samples
that are NaN or infinite. Pure."""

import re
import struct

_PCM, _FLOAT, _EXTENSIBLE = 1, 3, 0xFFFE
_SUBFORMAT = slice(24, 26)  # the kind of samples in an extensible format
_WAVE_FORMAT = "<HHIIHH"  # kind, channels, rate, bytes a second, bytes of a frame, bits of a sample
_FRAME_HEADER_BYTES = 4  # of MP3
_ID3_HEADER_BYTES = 10
_SAMPLES = {3: 1152, 2: 576, 0: 576}  # samples of a frame, by MPEG's version (1, 2, 2.5)
_RATES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}
_KBITS = {  # bit rates of layer III, by its four bits
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


class BadAudio(Exception):
    """Invalid audio; the message is a sentence."""


def read_duration_s(data: bytes, format: str) -> float:
    """Returns the duration of a WAV or MP3 file in seconds. Raises `BadAudio`."""
    seconds = _wav_seconds(data) if format == "wav" else _mp3_seconds(data)
    if seconds <= 0:
        raise BadAudio("The file has no audio.")
    return seconds


def check_finite(data: bytes, format: str) -> None:
    """Raises `BadAudio` for a WAV file with samples that are NaN or infinite. Other files have
    none."""
    # Imported late, so that servers without audio do not load numpy.
    import numpy as np

    if format != "wav":
        return
    wave_format, samples = _wav_samples(data)
    kind, _, _, _, _, bits = struct.unpack_from(_WAVE_FORMAT, wave_format)
    if kind == _EXTENSIBLE and len(wave_format) >= _SUBFORMAT.stop:
        kind = int.from_bytes(wave_format[_SUBFORMAT], "little")
    if kind != _FLOAT or bits not in (32, 64):
        return
    values = np.frombuffer(samples, f"<f{bits // 8}", len(samples) * 8 // bits)
    if not np.isfinite(values).all():
        raise BadAudio("The audio holds samples that are NaN or infinite.")


def _wav_seconds(data: bytes) -> float:
    wave_format, samples = _wav_samples(data)
    return len(samples) / _bytes_per_second(wave_format)


def _wav_samples(data: bytes) -> tuple[bytes, memoryview]:
    """Returns the format and the samples of a WAV file."""
    if data[:4] != b"RIFF" or data[8:12] != b"WAVE":
        raise BadAudio("This is not a WAV file.")
    offset, wave_format = 12, b""
    while offset + 8 <= len(data):
        name, size = (
            data[offset : offset + 4],
            int.from_bytes(data[offset + 4 : offset + 8], "little"),
        )
        offset += 8
        if name == b"fmt ":
            wave_format = data[offset : offset + size]
            if len(wave_format) < struct.calcsize(_WAVE_FORMAT):
                raise BadAudio("The WAV file is damaged: its format is cut off.")
        if name == b"data" and wave_format:
            return wave_format, memoryview(data)[offset : offset + size]
        offset += size + size % 2
    raise BadAudio("The WAV file is damaged: it lacks its format or its samples.")


def _bytes_per_second(wave_format: bytes) -> int:
    """Raises `BadAudio` for samples that are neither PCM nor floats, or have no size."""
    kind, channels, rate, _, _, bits = struct.unpack_from(_WAVE_FORMAT, wave_format)
    if kind not in (_PCM, _FLOAT, _EXTENSIBLE):
        raise BadAudio(f"The WAV file holds samples of kind {kind}; PCM and float are read.")
    found: int = channels * rate * bits // 8
    if not found:
        raise BadAudio(
            "The WAV file is damaged: its channels, sample rate or sample size are zero."
        )
    return found


def _mp3_seconds(data: bytes) -> float:
    """Returns the sum of the durations of all frames."""
    offset, seconds = _find_first_frame(data), 0.0
    while offset + _FRAME_HEADER_BYTES <= len(data):
        size, frame_s = _read_frame(data, offset)
        if not size:
            offset = _find_frame(data, offset + 1)
            continue
        seconds += frame_s
        offset += size
    return seconds


def _find_first_frame(data: bytes) -> int:
    """Returns the position of the first frame, after the ID3 tag with which most files begin."""
    offset = 0
    if data[:3] == b"ID3" and len(data) >= _ID3_HEADER_BYTES:
        size = 0
        for byte in data[6:_ID3_HEADER_BYTES]:
            size = size << 7 | byte & 0x7F
        offset = _ID3_HEADER_BYTES + size
    found = _find_frame(data, offset)
    if found >= len(data):
        raise BadAudio("This is not an MP3 file.")
    return found


def _find_frame(data: bytes, offset: int) -> int:
    """Returns the position of the next frame; the end of the file if there is none."""
    found = _FRAME.search(data, offset)
    return len(data) if found is None else found.start()


def _read_frame(data: bytes, offset: int) -> tuple[int, float]:
    """Returns the bytes and the seconds of the frame at a position; zeros if there is none."""
    if _FRAME.match(data, offset) is None:
        return 0, 0.0
    version, kbits, rate = (
        data[offset + 1] >> 3 & 3,
        data[offset + 2] >> 4,
        data[offset + 2] >> 2 & 3,
    )
    samples, hertz = _SAMPLES[version], _RATES[version][rate]
    padding = data[offset + 2] >> 1 & 1
    return samples // 8 * _KBITS[version][kbits] * 1000 // hertz + padding, samples / hertz
