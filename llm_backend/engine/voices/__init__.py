"""ONNX models of speech, by sherpa-onnx: they read aloud, transcribe, and tell speakers apart.

model.py        a loaded voice: the audio of a sentence
recognizer.py   a loaded NeMo model: the transcript of a window
token_segments.py  its tokens as segments, pure
diarization.py  a loaded model of speakers: their turns in a block of a recording
speakers.py     voices of one block and those before it, pure
library.py      the library, imported at its first use
quiet.py        what the native code prints, dropped
"""

from llm_backend.engine.voices.diarization import DiarizationModel
from llm_backend.engine.voices.model import OnnxVoiceModel
from llm_backend.engine.voices.recognizer import RecognizerModel

__all__ = ["DiarizationModel", "OnnxVoiceModel", "RecognizerModel"]
