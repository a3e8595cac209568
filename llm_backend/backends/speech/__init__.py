"""Speech: local models that read a text aloud.

espeak_model.py        the program `espeak-ng` as a model that speaks
local_voice.py         an ONNX or GGUF voice in an engine of its own, and its speakers
speech_synthesizer.py  audio as a file, within permits
espeak.py              the program `espeak-ng`, a child process for each text
voices.py              names of the program's voices: OpenAI's and its own
sentences.py           sentences of a text that is still being written
seams.py               parts of a text that join without clicks
audio_encoder.py       samples as MP3, Opus, AAC, FLAC, WAV or PCM
"""

from llm_backend.backends.speech.espeak import Espeak
from llm_backend.backends.speech.espeak_model import BUILTIN_VOICE, EspeakModel
from llm_backend.backends.speech.local_voice import LocalVoice
from llm_backend.backends.speech.speech_synthesizer import (
    SpeechRequest,
    SpeechSynthesizer,
    SpeechUsage,
)
from llm_backend.backends.speech.voices import OPENAI_VOICES, Voice

__all__ = [
    "BUILTIN_VOICE",
    "OPENAI_VOICES",
    "Espeak",
    "EspeakModel",
    "LocalVoice",
    "SpeechRequest",
    "SpeechSynthesizer",
    "SpeechUsage",
    "Voice",
]
