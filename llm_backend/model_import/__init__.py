"""Models from elsewhere: downloads from the hub, and embedding models converted to GGUF files.

Depends on files and formats only, not on controllers, engine or store.

hub.py          downloads from the Hugging Face hub
installed.py    models in Python packages
convert.py      a BERT folder as one GGUF file
folder.py       the folder's configuration
safetensors.py  tensors of a checkpoint
tensors.py      names of tensors in GGUF
vocabulary.py   WordPiece in llama.cpp's form
gguf_file.py    the GGUF file
errors.py       errors of conversion
"""

from llm_backend.model_import.convert import convert
from llm_backend.model_import.errors import ConversionError
from llm_backend.model_import.installed import find_model_folder

__all__ = ["ConversionError", "convert", "find_model_folder"]
