"""Transcription: recordings as text, by local models.

transcript.py       a recording transcribed by a local model
windows.py          its windows, one after the other
whisper_windows.py  windows transcribed by a Whisper or a NeMo model
heard_windows.py    windows transcribed by a language model that hears
instructions.py     what such a model is asked
heard_answer.py     what it answers
speakers.py         speakers of a recording, told apart
"""

from llm_backend.backends.transcription.speakers import Diarization, KnownSpeaker
from llm_backend.backends.transcription.transcript import LocalTranscription, TranscriptUsage
from llm_backend.backends.transcription.windows import TranscriptPart, TranscriptRequest

__all__ = [
    "Diarization",
    "KnownSpeaker",
    "LocalTranscription",
    "TranscriptPart",
    "TranscriptRequest",
    "TranscriptUsage",
]
