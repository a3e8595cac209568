"""Transcription: recordings as text, by local models.

recording.py     samples of a client's file, decoded in a child process
sound_reader.py  that process: FFmpeg's libraries
pauses.py        sound without speech, where windows end
transcript.py    a recording transcribed window by window
"""

from llm_backend.backends.transcription.pauses import SpeechOptions
from llm_backend.backends.transcription.recording import Recording, RecordingLimits
from llm_backend.backends.transcription.transcript import (
    LocalTranscription,
    TranscriptPart,
    TranscriptRequest,
    TranscriptUsage,
)

__all__ = [
    "LocalTranscription",
    "Recording",
    "RecordingLimits",
    "SpeechOptions",
    "TranscriptPart",
    "TranscriptRequest",
    "TranscriptUsage",
]
