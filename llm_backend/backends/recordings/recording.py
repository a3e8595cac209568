"""Recording: a client's file, decoded to samples by a child process while they are read."""

from asyncio.subprocess import Process
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import IO

from llm_backend.backends.recordings.audio_reader import READ, TOO_LONG, UNREADABLE
from llm_backend.backends.recordings.pauses import SpeechOptions
from llm_backend.child_process import EXTERNAL_SIGNALS, run_reader
from llm_backend.errors import EngineUnavailable, InvalidRequest

TRANSCRIBED_RATE_HZ = 16_000
"""Rate of samples that models transcribe."""

_READER = "llm_backend.backends.recordings.audio_reader"
_CHUNK_BYTES = 256 * 1024
_ERROR_BYTES = 64 * 1024
_START_CPU_S = 60  # to import the libraries, and for short recordings
_LEAST_SPEED = 20  # seconds of audio that are decoded in a second of CPU time
_MEMORY_BYTES = 2 * 1024 * 1024 * 1024


@dataclass(frozen=True, kw_only=True)
class RecordingLimits:
    """Bounds of one recording."""

    bytes: int
    seconds: int


@dataclass(frozen=True, kw_only=True)
class Recording:
    """A client's file, and the field that it came in. With `speech`, which needs the default rate,
    audio without speech becomes digital silence."""

    file: IO[bytes]
    field: str
    limits: RecordingLimits
    rate_hz: int = TRANSCRIBED_RATE_HZ
    speech: SpeechOptions | None = None

    @asynccontextmanager
    async def decode(self) -> AsyncIterator[AsyncGenerator[bytes, None]]:
        """Yields the samples: signed, 16 bits, one channel, `rate_hz`. The child process is killed
        at the end. Raises `InvalidRequest`, also while the samples are read, if the file is not a
        recording or is too long."""
        seconds = self.limits.seconds
        cpu_s = _START_CPU_S + seconds // _LEAST_SPEED
        arguments: list[float] = [cpu_s, _MEMORY_BYTES, seconds, self.rate_hz]
        if self.speech is not None:
            arguments += [self.speech.threshold, self.speech.prefix_ms, self.speech.silence_ms]
        async with (
            run_reader(_READER, *arguments, file=self.file) as process,
            aclosing(self._chunks(process)) as chunks,
        ):
            yield chunks

    async def _chunks(self, process: Process) -> AsyncGenerator[bytes, None]:
        assert process.stdout is not None
        assert process.stderr is not None
        rest = b""
        while chunk := await process.stdout.read(_CHUNK_BYTES):
            data = rest + chunk
            end = len(data) // 2 * 2
            yield data[:end]
            rest = data[end:]
        lines = (await process.stderr.read(_ERROR_BYTES)).decode(errors="replace").splitlines()
        code = await process.wait()
        if code != READ:
            raise self._failure(code, lines[-1] if lines else "")

    def _failure(self, code: int, sentence: str) -> InvalidRequest | EngineUnavailable:
        if code in (UNREADABLE, TOO_LONG):
            error_code = "audio_too_long" if code == TOO_LONG else None
            return InvalidRequest(sentence, param=self.field, code=error_code)
        if code in EXTERNAL_SIGNALS:
            return EngineUnavailable(
                "The process that decoded the recording was killed; try again."
            )
        return InvalidRequest(
            "The recording is damaged, or decoding it exceeds a limit.", param=self.field
        )
