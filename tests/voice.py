"""The program and the library that the local voice needs, for tests that speak."""

import io
import shutil
from importlib.util import find_spec

from tests.missing import missing
from tests.serving import children_of

__all__ = ["PROGRAM", "decode_audio", "require_voice", "speaking"]

PROGRAM = "espeak-ng"


def require_voice() -> None:
    """Skips the test where nothing can speak."""
    if shutil.which(PROGRAM) is None:
        missing(f"{PROGRAM} is not installed: sh scripts/install_test_tools.sh")
    if find_spec("av") is None:
        missing("PyAV is not installed: pip install av")


def speaking(pid: int) -> list[int]:
    """Returns the processes that speak for a process."""
    return children_of(pid, PROGRAM.encode())


def decode_audio(data: bytes, format: str) -> tuple[float, bytes]:
    """Returns the seconds of an audio file, and its samples: signed, 16 bits, 24 kHz, mono."""
    import av  # tests that do not speak need none

    if format == "pcm":
        return len(data) / 48_000, data
    with av.open(io.BytesIO(data)) as container:
        stream = container.streams.audio[0]
        resampler = av.AudioResampler(format="s16", layout="mono", rate=24_000)
        frames = [one for frame in container.decode(stream) for one in resampler.resample(frame)]
        frames += resampler.resample(None)
    pcm = b"".join(bytes(one.planes[0])[: 2 * one.samples] for one in frames)
    return len(pcm) / 48_000, pcm
