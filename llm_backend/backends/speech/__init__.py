"""Speech: local models that read a text aloud.

voice_model.py    a model that speaks, within its permits
espeak.py         the program `espeak-ng`, a child process for each text
voices.py         names of voices: OpenAI's and the program's own
sound_encoder.py  samples as MP3, Opus, AAC, FLAC, WAV or PCM
"""

from llm_backend.backends.speech.espeak import Espeak
from llm_backend.backends.speech.voice_model import BUILTIN_VOICE, Speech, VoiceModel
from llm_backend.backends.speech.voices import OPENAI_VOICES, Voice

__all__ = ["BUILTIN_VOICE", "OPENAI_VOICES", "Espeak", "Speech", "Voice", "VoiceModel"]
