"""Spoken text: sentences of a message are read aloud while the model generates the next ones."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import TYPE_CHECKING

from llm_backend.backends.speech.sentences import SentenceSplitter, is_spoken
from llm_backend.controllers.internal_requests import json_body
from llm_backend.controllers.realtime.audio_formats import PCM, AudioFormat
from llm_backend.controllers.realtime.conversation import SpokenSentence
from llm_backend.controllers.realtime.session_config import SessionConfig
from llm_backend.controllers.realtime.session_requests import SessionRequests
from llm_backend.errors import EngineUnavailable

if TYPE_CHECKING:
    from llm_backend.backends.speech.audio_encoder import AudioEncoder

SendAudio = Callable[[bytes], Awaitable[None]]


class SpokenText:
    """Reads the sentences of one message aloud, one after the other, and sends their audio.
    `sentences` are those that have begun: the last one may have no audio yet, and one without words
    has none."""

    def __init__(self, config: SessionConfig, requests: SessionRequests, send: SendAudio) -> None:
        self.sentences: list[SpokenSentence] = []
        self._config = config
        self._requests = requests
        self._send = send
        self._format = config.output_format
        self._splitter = SentenceSplitter()
        self._size_bytes = 0  # of all audio sent
        self._queue: asyncio.Queue[str | None] = asyncio.Queue()
        self._task = asyncio.create_task(self._run())

    def add(self, text: str) -> None:
        """Adds text. Raises the errors of `finish` if an earlier sentence could not be read."""
        if self._task.done():
            self._task.result()
        for sentence in self._splitter.feed(text):
            self._queue.put_nowait(sentence)

    async def finish(self) -> None:
        """Returns when all audio is sent. Raises `InternalRequestFailed` and `ApiError`."""
        for sentence in self._splitter.finish():
            self._queue.put_nowait(sentence)
        self._queue.put_nowait(None)
        await self._task

    async def cancel(self) -> None:
        """Stops the reading immediately, and for good."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        del self._task  # it keeps its error, whose frames refer to this object

    async def _run(self) -> None:
        while (text := await self._queue.get()) is not None:
            spoken = SpokenSentence(text=text)
            self.sentences.append(spoken)
            if not is_spoken(text):
                continue
            async with aclosing(self._read(text)) as chunks:
                async for chunk in chunks:
                    spoken.duration_ms += self._add_audio(len(chunk))
                    await self._send(chunk)

    def _add_audio(self, size: int) -> int:
        """Returns the whole milliseconds that this audio adds to the message. They are computed
        from the total bytes, so that rounding does not add up over chunks."""
        before_ms = self._format.duration_ms(self._size_bytes)
        self._size_bytes += size
        return self._format.duration_ms(self._size_bytes) - before_ms

    async def _read(self, text: str) -> AsyncGenerator[bytes, None]:
        """Yields the audio of a sentence in the format of the session, in whole samples."""
        encoder = await asyncio.to_thread(_encoder, self._format)
        rest = b""
        body = json_body({**self._config.speech, "input": text, "response_format": PCM.encoding})
        async with self._requests.open("/audio/speech", body) as answer:
            async for piece in answer.pieces:
                data = rest + piece
                end = len(data) // PCM.sample_bytes * PCM.sample_bytes
                rest = data[end:]
                if chunk := data[:end] if encoder is None else encoder.encode(data[:end]):
                    yield chunk
            if not answer.is_complete():
                raise EngineUnavailable("The voice failed in the middle of a sentence.")
        if encoder is not None and (chunk := encoder.finish()):
            yield chunk


def _encoder(format: AudioFormat) -> "AudioEncoder | None":
    """Returns the encoder from the PCM of voices to `format`; None if that is PCM, too."""
    if format == PCM:
        return None
    from llm_backend.backends.speech.audio_encoder import AudioEncoder  # loads FFmpeg

    return AudioEncoder(format.encoding, rate_hz=PCM.rate_hz)
