"""Transcripts in the formats that clients ask for: JSON, subtitles (pure)."""

import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Self

from llm_backend.backends.base import Usage
from llm_backend.backends.transcription import TranscriptPart
from llm_backend.engine.messages import TranscriptSegment
from llm_backend.json_types import JsonMapping

if TYPE_CHECKING:
    from llm_backend.contract import api_types as api

TranscriptFormat = Literal["json", "text", "srt", "verbose_json", "vtt", "diarized_json"]

ENGLISH = "english"
"""Name of the language of translations."""

_SEEK_UNITS_PER_S = 100  # `seek` counts hundredths of a second


@dataclass(frozen=True, kw_only=True)
class Transcript:
    """A whole transcript. Each of its `parts` is of one window, which may have several; `language`
    is the English name of its language."""

    parts: Sequence[TranscriptPart]
    language: str
    temperature: float

    @classmethod
    def join(
        cls, parts: Sequence[TranscriptPart], *, temperature: float, language_name: str | None
    ) -> Self:
        """Joins the parts; `language_name`, if given, replaces the detected language."""
        detected = next((part.language for part in reversed(parts) if part.language), "")
        return cls(parts=parts, language=language_name or detected, temperature=temperature)

    @property
    def segments(self) -> list[TranscriptSegment]:
        """All segments."""
        return [segment for part in self.parts for segment in part.segments]

    @property
    def text(self) -> str:
        """The text of all segments."""
        return "".join(one.text for one in self.segments).strip()

    @property
    def usage(self) -> Usage | None:
        """Tokens of all parts; None for a model that counts none."""
        usages = [part.usage for part in self.parts if part.usage is not None]
        return sum(usages, Usage()) if usages else None

    @property
    def duration_s(self) -> float:
        """Seconds of the recording."""
        return self.parts[-1].end_s if self.parts else 0.0


def json_transcript(
    transcript: Transcript, *, has_logprobs: bool
) -> "api.CreateTranscriptionResponseJson":
    """Returns the `json` format."""
    usage = transcript.usage
    answer: api.CreateTranscriptionResponseJson = {
        "text": transcript.text,
        "usage": {"type": "duration", "seconds": _round(transcript.duration_s)}
        if usage is None
        else token_usage(usage),
    }
    if has_logprobs:
        answer["logprobs"] = logprobs_of(transcript.segments)
    return answer


def token_usage(usage: Usage) -> "api.TranscriptTextUsageTokens":
    """Returns the usage of a model that counts tokens."""
    return {
        "type": "tokens",
        "input_tokens": usage.prompt_tokens,
        "input_token_details": {
            "audio_tokens": usage.audio_tokens,
            "text_tokens": usage.text_tokens,
        },
        "output_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }


def verbose_transcript(
    transcript: Transcript, *, task: str, has_segments: bool, has_words: bool
) -> JsonMapping:
    """Returns the `verbose_json` format."""
    segments = [
        _segment(segment, part, transcript.temperature)
        for part in transcript.parts
        for segment in part.segments
    ]
    words = [
        {"word": one.text, "start": _round(one.start_s), "end": _round(one.end_s)}
        for segment in transcript.segments
        for one in segment.words
    ]
    duration_s = _round(transcript.duration_s)
    return {
        "task": task,
        "language": transcript.language,
        "duration": duration_s,
        "text": transcript.text,
        **({"segments": _number(segments)} if has_segments else {}),
        **({"words": words} if has_words else {}),
        "usage": {"type": "duration", "seconds": duration_s},
    }


def diarized_transcript(transcript: Transcript) -> "api.CreateTranscriptionResponseDiarizedJson":
    """Returns the `diarized_json` format."""
    duration_s = _round(transcript.duration_s)
    spoken = [
        one for part in transcript.parts for one in zip(part.segments, part.speakers, strict=True)
    ]
    return {
        "task": "transcribe",
        "duration": duration_s,
        "text": transcript.text,
        "segments": [diarized_segment(at, *one) for at, one in enumerate(spoken)],
        "usage": {"type": "duration", "seconds": duration_s},
    }


def diarized_segment(
    number: int, segment: TranscriptSegment, speaker: str
) -> "api.TranscriptionDiarizedSegment":
    """Returns a segment of the `diarized_json` format, which is also its event in a stream."""
    return {
        "type": "transcript.text.segment",
        "id": f"seg_{number}",
        "speaker": speaker,
        "start": _round(segment.start_s),
        "end": _round(segment.end_s),
        "text": segment.text.strip(),
    }


def logprobs_of(
    segments: Iterable[TranscriptSegment],
) -> "list[api.CreateTranscriptionResponseJsonLogprob]":
    """Returns the tokens of the text, each with its logprob."""
    return [
        {
            "token": one.bytes.decode(errors="replace"),
            "bytes": list(one.bytes),
            "logprob": one.logprob or 0.0,
        }
        for segment in segments
        for one in segment.logprobs
    ]


def subtitles(transcript: Transcript, *, is_srt: bool) -> str:
    """Returns the `srt` or the `vtt` format."""
    blocks = []
    for number, segment in enumerate(transcript.segments, 1):
        start, end = (_clock(one, is_srt) for one in (segment.start_s, segment.end_s))
        # A blank line would end the block, and a line with `-->` would be read as its times.
        text = " ".join(segment.text.replace("-->", "->").split())
        lines = [*([str(number)] if is_srt else []), f"{start} --> {end}", text]
        blocks.append("\n".join(lines) + "\n\n")
    return "".join(blocks if is_srt else ["WEBVTT\n\n", *blocks])


def _segment(segment: TranscriptSegment, part: TranscriptPart, temperature: float) -> JsonMapping:
    logprobs = [one.logprob or 0.0 for one in segment.logprobs]
    text = segment.text.encode()
    return {
        "seek": round(part.seek_s * _SEEK_UNITS_PER_S),
        "start": _round(segment.start_s),
        "end": _round(segment.end_s),
        "text": segment.text,
        "tokens": segment.tokens,
        "temperature": temperature,
        "avg_logprob": sum(logprobs) / len(logprobs) if logprobs else 0.0,
        "compression_ratio": len(text) / len(zlib.compress(text)),
        "no_speech_prob": segment.no_speech_probability,
    }


def _number(segments: Sequence[JsonMapping]) -> list[JsonMapping]:
    return [{"id": number, **one} for number, one in enumerate(segments)]


def _round(seconds: float) -> float:
    return round(seconds, 3)


def _clock(seconds: float, is_srt: bool) -> str:
    whole, milliseconds = divmod(round(seconds * 1000), 1000)
    minutes, second = divmod(whole, 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours:02}:{minute:02}:{second:02}{',' if is_srt else '.'}{milliseconds:03}"
