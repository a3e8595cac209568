"""Model files: embedding models in the sentence-transformers layout become GGUF files.

Knows files and formats only: no controllers, engine or store.
"""

from llm_backend.models.convert import ConvertedModel, OutType, convert
from llm_backend.models.errors import ConversionError
from llm_backend.models.installed import find_model_folder

__all__ = ["ConversionError", "ConvertedModel", "OutType", "convert", "find_model_folder"]
