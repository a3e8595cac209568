"""ONNX models of voices, by sherpa-onnx: they read texts aloud, and tell speakers apart.

model.py        a loaded voice: the sound of a sentence
diarization.py  a loaded model of speakers: their turns in a block of a recording
speakers.py     voices of one block and those before it, pure
library.py      the library, imported at its first use
quiet.py        what the native code prints, dropped
"""

from llm_backend.engine.voices.diarization import DiarizationModel
from llm_backend.engine.voices.model import OnnxVoiceModel

__all__ = ["DiarizationModel", "OnnxVoiceModel"]
