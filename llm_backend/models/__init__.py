"""Models from elsewhere: downloads from the hub, and embedding models converted to GGUF files.

Depends on files and formats only, not on controllers, engine or store.
"""

from llm_backend.models.convert import convert
from llm_backend.models.errors import ConversionError
from llm_backend.models.installed import find_model_folder

__all__ = ["ConversionError", "convert", "find_model_folder"]
