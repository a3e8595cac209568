"""whisper.cpp: models that transcribe recordings, window by window.

library.py  the native functions and structures; the only module that calls them
model.py    a loaded model: the transcript of a window
"""

from llm_backend.engine.whisper.model import WhisperModel

__all__ = ["WhisperModel"]
