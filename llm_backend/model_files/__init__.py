"""GGUF model files without the engine: location, header, and memory footprint.

location.py   finds the file of a model or a projector
header.py     GGUF header parser
footprint.py  memory of a model
projector.py  media and memory of a projector
memory.py     total and available memory of this machine
"""

from llm_backend.model_files.footprint import (
    ModelShape,
    footprint,
    generates,
)
from llm_backend.model_files.header import (
    GgufHeader,
    HeaderError,
    model_parts,
    read_header,
)
from llm_backend.model_files.location import (
    HUB_NAME,
    ModelFileMissing,
    find_model_file,
    find_projector_file,
)
from llm_backend.model_files.memory import available_memory_bytes, machine_memory_bytes
from llm_backend.model_files.projector import projector_footprint, projector_shape

__all__ = [
    "HUB_NAME",
    "GgufHeader",
    "HeaderError",
    "ModelFileMissing",
    "ModelShape",
    "available_memory_bytes",
    "find_model_file",
    "find_projector_file",
    "footprint",
    "generates",
    "machine_memory_bytes",
    "model_parts",
    "projector_footprint",
    "projector_shape",
    "read_header",
]
