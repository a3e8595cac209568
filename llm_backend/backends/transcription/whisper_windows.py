"""Windows of a recording, transcribed by a Whisper or a NeMo model."""

from collections.abc import AsyncGenerator
from dataclasses import replace
from functools import partial

import msgspec

from llm_backend.backends.local.engine_errors import translate_engine_errors
from llm_backend.backends.local.local_model import LocalModel
from llm_backend.backends.local.request_parts import RequestParts
from llm_backend.backends.recordings.pauses import bytes_until_quietest
from llm_backend.backends.transcription.windows import (
    TranscriptPart,
    TranscriptRequest,
    Windows,
    is_silence,
    length_s,
)
from llm_backend.engine import EngineClient
from llm_backend.engine.messages import (
    SAMPLE_BYTES,
    SAMPLES_HZ,
    WINDOW_S,
    TimedWord,
    Transcribe,
    Transcribed,
    TranscriptSegment,
)

_CONTEXT_TOKENS = 224  # tokens of earlier windows; the model takes as many as it can
_LEAST_LOGPROB = -1.0  # least mean of a window that gives context to the next


class WhisperWindows(Windows):
    """Windows that end in a detected pause, or where the model ends its last segment. The text of a
    window is context for the next one."""

    def __init__(self, model: LocalModel, request: TranscriptRequest, *, has_pauses: bool) -> None:
        super().__init__(window_s=WINDOW_S, has_pauses=has_pauses)
        self._request = request
        self._context: list[int] = []
        self._parts = RequestParts(model.handle)

    async def _transcribe_window(
        self, window: bytes, speech_bytes: int | None, *, is_last: bool
    ) -> AsyncGenerator[TranscriptPart, None]:
        answer = await self._answer(
            window[:speech_bytes], is_last=is_last or speech_bytes is not None
        )
        seek_s = self._seek_s
        self._advance(speech_bytes or round(answer.end_s * SAMPLES_HZ) * SAMPLE_BYTES)
        yield TranscriptPart(
            segments=[_shift(one, seek_s) for one in answer.segments],
            language=answer.language_name,
            seek_s=seek_s,
            end_s=self._seek_s,
        )

    async def _answer(self, window: bytes, *, is_last: bool) -> Transcribed:
        """Returns the transcript of a window; a silent window gets an empty one."""
        if is_silence(window):
            language = self._request.language or ""
            return Transcribed(
                id="", segments=[], language=language, language_name="", end_s=length_s(len(window))
            )
        self.is_silent = False
        command = self._command(window, is_last=is_last)
        with translate_engine_errors(language="language"):
            answer = await self._parts.take(partial(_transcribe, command))
        self._request = replace(self._request, language=answer.language or None)
        self._remember(answer)
        return answer

    def _command(self, window: bytes, *, is_last: bool) -> Transcribe:
        request = self._request
        return Transcribe(
            samples=window,
            language=request.language,
            translate=request.translate,
            prompt=request.prompt,
            context=self._context,
            temperature=request.temperature,
            words=request.words,
            is_last=is_last,
            has_begun=self._parts.has_begun,
        )

    def _remember(self, answer: Transcribed) -> None:
        tokens = [token for one in answer.segments for token in one.tokens]
        logprobs = [one.logprob or 0.0 for part in answer.segments for one in part.logprobs]
        is_sure = not logprobs or sum(logprobs) / len(logprobs) >= _LEAST_LOGPROB
        self._context = [*self._context, *tokens][-_CONTEXT_TOKENS:] if is_sure else []


class RecognizerWindows(WhisperWindows):
    """Windows of a NeMo model. They end in pauses, or in their quietest moments, as the model does
    not report where it has lost a word, and give no context to each other."""

    def _transcribe_window(
        self, window: bytes, speech_bytes: int | None, *, is_last: bool
    ) -> AsyncGenerator[TranscriptPart, None]:
        if speech_bytes is None and not is_last:
            speech_bytes = bytes_until_quietest(window)
        return super()._transcribe_window(window, speech_bytes, is_last=is_last)

    def _remember(self, answer: Transcribed) -> None:
        pass


async def _transcribe(command: Transcribe, engine: EngineClient) -> Transcribed:
    return await engine.transcribe(command)


def _shift(segment: TranscriptSegment, by_s: float) -> TranscriptSegment:
    words = [
        TimedWord(text=one.text, start_s=one.start_s + by_s, end_s=one.end_s + by_s)
        for one in segment.words
    ]
    return msgspec.structs.replace(
        segment, start_s=segment.start_s + by_s, end_s=segment.end_s + by_s, words=words
    )
