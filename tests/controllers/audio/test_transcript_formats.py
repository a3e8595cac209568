"""Formats of transcripts."""

from llm_backend.backends.transcription import TranscriptPart
from llm_backend.controllers.audio.transcript_formats import (
    Transcript,
    json_transcript,
    subtitles,
    verbose_transcript,
)
from llm_backend.engine.messages import TokenLogprob, TranscriptSegment


def segment(start_s: float, text: str, end_s: float) -> TranscriptSegment:
    return TranscriptSegment(
        start_s=start_s,
        end_s=end_s,
        text=text,
        tokens=[1],
        logprobs=[TokenLogprob(token=1, bytes=text.encode(), logprob=-0.5)],
        no_speech_probability=0.25,
    )


def transcript(*parts: TranscriptPart) -> Transcript:
    return Transcript.join(parts, temperature=0.2, language_name=None)


def part(seek_s: float, *segments: TranscriptSegment, language: str = "german") -> TranscriptPart:
    return TranscriptPart(
        segments=list(segments), language=language, seek_s=seek_s, end_s=seek_s + 30
    )


LONG = transcript(
    part(0, segment(0.5, " One.", 1), segment(2, " Two --> three.\n\nFour", 29.999)),
    part(30, language=""),
    part(3600, segment(3600.25, " Last.", 3601)),
)


def test_texts_are_joined_over_windows():
    assert LONG.text == "One. Two --> three.\n\nFour Last."
    assert (LONG.language, LONG.duration_s) == ("german", 3630)
    assert json_transcript(LONG, has_logprobs=False) == {
        "text": LONG.text,
        "usage": {"type": "duration", "seconds": 3630},
    }


def test_subtitles_have_no_line_that_ends_or_times_a_block():
    assert subtitles(LONG, is_srt=True).split("\n\n") == [
        "1\n00:00:00,500 --> 00:00:01,000\nOne.",
        "2\n00:00:02,000 --> 00:00:29,999\nTwo -> three. Four",
        "3\n01:00:00,250 --> 01:00:01,000\nLast.",
        "",
    ]
    assert subtitles(LONG, is_srt=False).startswith("WEBVTT\n\n00:00:00.500 --> 00:00:01.000\n")


def test_segments_are_numbered_and_have_the_position_of_their_window():
    verbose = verbose_transcript(LONG, task="transcribe", has_segments=True, has_words=False)

    assert [(one["id"], one["seek"]) for one in verbose["segments"]] == [
        (0, 0), (1, 0), (2, 360_000),
    ]  # fmt: skip
    assert verbose["segments"][0]["avg_logprob"] == -0.5
    assert verbose["segments"][0]["temperature"] == 0.2
    assert "words" not in verbose


def test_a_recording_without_words_is_an_empty_text():
    empty = transcript(part(0))

    assert (empty.text, subtitles(empty, is_srt=True)) == ("", "")
    assert verbose_transcript(empty, task="transcribe", has_segments=True, has_words=True)[
        "segments"
    ] == []  # fmt: skip
