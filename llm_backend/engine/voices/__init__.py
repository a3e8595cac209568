"""ONNX voices: models that read texts aloud, sentence by sentence, by sherpa-onnx.

model.py  a loaded voice: the sound of a sentence; the only module that imports the library
"""

from llm_backend.engine.voices.model import OnnxVoiceModel

__all__ = ["OnnxVoiceModel"]
