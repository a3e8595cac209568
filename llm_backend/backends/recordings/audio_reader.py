"""Child process that decodes one untrusted recording, on its standard input.

    python -m llm_backend.backends.recordings.audio_reader \
        CPU_S MEMORY_BYTES SECONDS RATE_HZ < file
    ... CPU_S MEMORY_BYTES SECONDS 16000 THRESHOLD PREFIX_MS SILENCE_MS < file

The process prints signed 16-bit samples of one channel at this rate. With the options of detection,
audio without speech is digital silence. Its exit code is one of those below; unless that is `READ`,
the last line on standard error is a sentence. Libraries are imported after the limits are set, so
that the limits bound them, too.
"""

import math
import os
import sys
from array import array
from collections.abc import Iterator
from typing import IO, Any

from llm_backend.operating_system import limit_resources

READ, UNREADABLE, TOO_LONG = 0, 3, 4

_CONTAINERS = (
    "aac,ac3,aiff,amr,amrnb,amrwb,ape,asf,au,avi,caf,dts,eac3,flac,flv,matroska,mov,mp3,mpeg,mpegts,"
    "ogg,tta,w64,wav,wv"
)
"""FFmpeg's names of formats that hold audio; those that can refer to other files are left out."""
_MICROSECONDS = 1_000_000


class _UnreadableRecording(Exception):
    """The file is not a recording, or is damaged."""


class _RecordingTooLong(Exception):
    """The recording is longer than allowed."""


def main(arguments: list[str]) -> int:
    """Decodes the recording and returns the exit code."""
    cpu_s, memory_bytes, limit_s, rate_hz = map(int, arguments[:4])
    os.nice(10)  # requests have priority
    limit_resources(cpu_s, memory_bytes)
    try:
        samples = _samples(sys.stdin.buffer, limit_s, rate_hz)
        for part in _without_pauses(samples, arguments[4:]) if arguments[4:] else samples:
            sys.stdout.buffer.write(part)
        sys.stdout.buffer.flush()
    except (_UnreadableRecording, _RecordingTooLong) as error:
        sys.stderr.write(f"\n{error}\n")
        return TOO_LONG if isinstance(error, _RecordingTooLong) else UNREADABLE
    except MemoryError:
        sys.stderr.write("\nDecoding the recording exceeds its memory limit.\n")
        return UNREADABLE
    return READ


def _without_pauses(samples: Iterator[bytes], options: list[str]) -> Iterator[bytes]:
    from llm_backend.backends.recordings.pauses import PauseFilter, SpeechOptions

    threshold, prefix_ms, silence_ms = options
    pauses = PauseFilter(
        SpeechOptions(
            threshold=float(threshold), prefix_ms=int(prefix_ms), silence_ms=int(silence_ms)
        )
    )
    for part in samples:
        yield pauses.feed(part)
    yield pauses.finish()


def _samples(file: IO[bytes], limit_s: int, rate_hz: int) -> Iterator[bytes]:
    import av

    try:
        with _open(file) as container:
            if not container.streams.audio:
                raise _UnreadableRecording("The file holds no audio.")
            if (container.duration or 0) <= limit_s * _MICROSECONDS:
                yield from _decode(container, limit_s, rate_hz)
                return
            # FFmpeg estimates the duration of files without one, such as AAC, by their first
            # packets, which are small if the recording begins with silence.
            if _packets_s(container) > limit_s:
                raise _too_long(limit_s)
        file.seek(0)
        with _open(file) as container:
            yield from _decode(container, limit_s, rate_hz)
    except (av.error.FFmpegError, ValueError, EOFError) as error:
        raise _UnreadableRecording(
            "The file is not a recording that can be decoded, or is damaged."
        ) from error


def _open(file: IO[bytes]) -> Any:
    import av

    options = {"format_whitelist": _CONTAINERS, "protocol_whitelist": ""}
    return av.open(file, "r", options=options, **_metadata_options())


def _packets_s(container: Any) -> float:
    """Returns the duration of all packets, without decoding them."""
    packets = container.demux(container.streams.audio[0])
    return float(sum(one.duration * one.time_base for one in packets if one.duration))


def _metadata_options() -> dict[str, Any]:
    """Returns the options by which PyAV reads titles that are not UTF-8. PyAV 19, installed from
    Python 3.12 on, always reads them and has no such option."""
    import av

    return {"metadata_errors": "replace"} if int(av.__version__.split(".")[0]) < 19 else {}


def _decode(container: Any, limit_s: int, rate_hz: int) -> Iterator[bytes]:
    """Yields the samples of undamaged packets. Raises `_UnreadableRecording` if there are none."""
    count = 0
    floats = map(_check_finite, _resample(_frames(container), "flt", rate_hz))
    for resampled in _resample(floats, "s16", rate_hz):
        count += resampled.samples
        if count > limit_s * rate_hz:
            raise _too_long(limit_s)
        yield _little_endian(resampled)
    if not count:
        raise _UnreadableRecording("The file holds no audio that can be decoded.")


def _resample(frames: Iterator[Any], format: str, rate_hz: int) -> Iterator[Any]:
    """Yields frames of one channel, in this format and rate. A resampler takes frames of one
    format, rate and number of channels only. Where a recording changes them, as joined MP3 files
    do, a new resampler is created."""
    import av

    resampler, current = None, None
    for frame in frames:
        parameters = frame.format.name, frame.layout.name, frame.sample_rate
        if resampler is None or parameters != current:
            if resampler is not None:
                yield from resampler.resample(None)
            current = parameters
            resampler = av.AudioResampler(format=format, layout="mono", rate=rate_hz)
        yield from resampler.resample(frame)
    if resampler is not None:
        yield from resampler.resample(None)


def _frames(container: Any) -> Iterator[Any]:
    import av

    for packet in container.demux(container.streams.audio[0]):
        try:
            yield from packet.decode()
        except av.error.InvalidDataError:
            continue


def _check_finite(frame: Any) -> Any:
    """Returns a frame of 32-bit floats. Raises `_UnreadableRecording` if one of them is NaN or
    infinite: then their sum is NaN or infinite, too."""
    if not math.isfinite(sum(_values(frame, "f"))):
        raise _UnreadableRecording("The recording holds samples that are NaN or infinite.")
    return frame


def _little_endian(frame: Any) -> bytes:
    samples = _values(frame, "h")
    if sys.byteorder == "big":
        samples.byteswap()
    return samples.tobytes()


def _values(frame: Any, type: str) -> "array[Any]":
    """Returns the samples of a frame of one channel, without its padding. numpy is not used:
    importing it takes longer than decoding a short recording."""
    values = array(type)
    values.frombytes(memoryview(frame.planes[0])[: frame.samples * values.itemsize])
    return values


def _too_long(limit_s: int) -> _RecordingTooLong:
    return _RecordingTooLong(f"The recording is longer than this server's limit of {limit_s} s.")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
