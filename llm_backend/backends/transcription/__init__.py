"""Transcription: recordings as text, by local models.

transcript.py       a recording transcribed by a local model
windows.py          its windows, one after the other
whisper_windows.py  windows transcribed by a Whisper or a NeMo model
chat_windows.py     windows transcribed by a chat with a model that takes audio
instructions.py     the instruction of such a model
window_answer.py    its answer as text of the transcript
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
