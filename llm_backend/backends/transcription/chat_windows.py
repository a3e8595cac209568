"""Windows of a recording, transcribed by a language model whose projector encodes audio."""

import asyncio
import io
import wave
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Self

from llm_backend.backends.base import Chat, GenerationLimits, Usage
from llm_backend.backends.local.local_model import LocalModel
from llm_backend.backends.local.media import DecodedAudio
from llm_backend.backends.recordings.pauses import bytes_until_quietest
from llm_backend.backends.transcription.instructions import MARKS, Instruction, instruction_for
from llm_backend.backends.transcription.window_answer import WindowAnswer, join_windows
from llm_backend.backends.transcription.windows import (
    TranscriptPart,
    TranscriptRequest,
    Windows,
    is_silence,
    length_s,
)
from llm_backend.engine.messages import (
    SAMPLE_BYTES,
    SAMPLES_HZ,
    Sampling,
    TokenLogprob,
    TranscriptSegment,
)
from llm_backend.errors import ContextLengthExceeded, EngineUnavailable

_LEAST_BYTES = SAMPLES_HZ // 2 * SAMPLE_BYTES  # shorter audio is padded with silence
_START_TOKENS, _TOKENS_A_SECOND = 64, 20  # limit of an answer: the model may repeat itself


class ChatWindows(Windows):
    """Transcribes each window by a chat about its audio; windows end in pauses, or else in their
    quietest moments. A recording survives one crash of the engine: a window after the first is
    computed again, if nothing of it was yielded."""

    def __init__(
        self,
        model: LocalModel,
        request: TranscriptRequest,
        instruction: Instruction,
        *,
        context_tokens: int,
        window_s: float,
        has_pauses: bool,
        field: str,
    ) -> None:
        super().__init__(window_s=window_s, has_pauses=has_pauses)
        self._model = model
        self._request = request
        self._instruction = instruction
        self._context_tokens = context_tokens
        self._field = field
        self._transcript_end = ""
        self._has_begun = self._has_retried = False

    @classmethod
    async def create(
        cls,
        model: LocalModel,
        request: TranscriptRequest,
        *,
        window_s: float,
        has_pauses: bool,
        field: str,
    ) -> Self:
        """Creates the windows of a recording that came in `field`, by the model's instruction.
        Raises `ApiError`."""
        info = await model.info()
        split = await asyncio.gather(
            *(model.tokenize(mark, parse_special=True, add_bos=False) for mark in MARKS)
        )
        marks = {mark for mark, tokens in zip(MARKS, split, strict=True) if len(tokens) == 1}
        instruction = instruction_for(info.architecture, marks, request)
        return cls(
            model,
            request,
            instruction,
            context_tokens=info.context_tokens,
            window_s=window_s,
            has_pauses=has_pauses,
            field=field,
        )

    async def _transcribe_window(
        self, window: bytes, speech_bytes: int | None, *, is_last: bool
    ) -> AsyncGenerator[TranscriptPart, None]:
        speech_bytes = speech_bytes or (len(window) if is_last else bytes_until_quietest(window))
        audio, seek_s = window[:speech_bytes], self._seek_s
        self._advance(speech_bytes)
        if is_silence(audio):
            yield self._part("", (), seek_s)
            return
        self.is_silent = False
        async with aclosing(self._hear_with_retry(audio, seek_s)) as parts:
            async for part in parts:
                yield part
        self._has_begun = True

    async def _hear_with_retry(
        self, audio: bytes, seek_s: float
    ) -> AsyncGenerator[TranscriptPart, None]:
        has_yielded = False
        while True:
            try:
                async with aclosing(self._hear(audio, seek_s)) as parts:
                    async for part in parts:
                        has_yielded = True
                        yield part
                return
            except EngineUnavailable:
                if has_yielded or self._has_retried or not self._has_begun:
                    raise
                self._has_retried = True

    async def _hear(self, audio: bytes, seek_s: float) -> AsyncGenerator[TranscriptPart, None]:
        chat = self._chat(audio)
        answer = WindowAnswer(may_have_header=self._instruction.has_header)
        before, is_first = self._transcript_end, True
        try:
            generation = await self._model.chat(chat)
        except ContextLengthExceeded as error:
            prompt_tokens = await self._model.count_prompt_tokens(chat)
            raise self._context_exceeded(prompt_tokens + 1) from error
        async with generation, aclosing(generation.chat_deltas(chat)) as deltas:
            async for delta in deltas:
                text, logprobs = answer.feed(delta.content, delta.logprobs)
                if is_first:
                    text = join_windows(before, text)
                if text:
                    is_first = False
                    yield self._part(text, logprobs, seek_s, language=answer.language)
                if delta.finish_reason == "length" and (
                    generation.usage.completion_tokens < (chat.limits.max_tokens or 0)
                ):
                    usage = generation.usage
                    tokens = usage.prompt_tokens + usage.completion_tokens
                    raise self._context_exceeded(tokens + 1)
        rest, logprobs = answer.finish()
        text = join_windows(before, rest) if is_first else rest
        yield self._part(text, logprobs, seek_s, language=answer.language, usage=generation.usage)

    def _context_exceeded(self, tokens: int) -> ContextLengthExceeded:
        """Returns the error for a window that needs at least this number of tokens."""
        return ContextLengthExceeded(
            "A window of the recording, the `prompt` and the transcript need at least "
            f"{tokens} tokens, and the model's context is {self._context_tokens}: load it with "
            "more `context_tokens`.",
            param="prompt" if self._request.prompt else self._field,
        )

    def _chat(self, audio: bytes) -> Chat:
        instruction, request = self._instruction, self._request
        file = DecodedAudio(data=_wav(audio), param=self._field)
        content = [piece for piece in (instruction.before, file, instruction.after) if piece]
        text = instruction.system
        system = [] if text is None else [{"role": "system", "content": text}]
        following = instruction.next_message
        last = [{"role": "user", "content": following}] if following else []
        max_tokens = _START_TOKENS + round(_TOKENS_A_SECOND * length_s(len(audio)))
        return Chat(
            messages=[*system, {"role": "user", "content": content}, *last],
            has_personality=False,
            reasoning_effort="none",
            must_take_effort=False,
            opening=instruction.opening,
            limits=GenerationLimits(max_tokens=max_tokens),
            sampling=Sampling(
                temperature=request.temperature, logprobs=0 if request.logprobs else None
            ),
        )

    def _part(
        self,
        text: str,
        logprobs: Sequence[TokenLogprob],
        seek_s: float,
        *,
        language: str = "",
        usage: Usage | None = None,
    ) -> TranscriptPart:
        self._transcript_end = text or self._transcript_end
        segment = TranscriptSegment(
            start_s=seek_s,
            end_s=self._seek_s,
            text=text,
            tokens=[],
            logprobs=list(logprobs),
            no_speech_probability=0.0,
        )
        return TranscriptPart(
            segments=[segment] if text else [],
            language=language.lower(),
            seek_s=seek_s,
            end_s=self._seek_s,
            usage=usage,
        )


def _wav(audio: bytes) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setparams((1, SAMPLE_BYTES, SAMPLES_HZ, 0, "NONE", "not compressed"))
        writer.writeframes(audio.ljust(_LEAST_BYTES, b"\0"))
    return file.getvalue()
