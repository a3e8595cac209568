"""Cloned voices, and recorded consents: values, rows and operations.

voices.py         store of voices and consents
stored_voice.py   values
voice_rows.py     both as rows
"""

from llm_backend.store.voices.stored_voice import StoredVoice, StoredVoiceConsent
from llm_backend.store.voices.voices import VoiceStore

__all__ = ["StoredVoice", "StoredVoiceConsent", "VoiceStore"]
