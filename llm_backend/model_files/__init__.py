"""Model files, without what computes them: where they are, what they say, what they take."""

from llm_backend.model_files.footprint import (
    Footprint,
    ModelShape,
    footprint,
    generates,
    machine_memory_bytes,
)
from llm_backend.model_files.header import (
    GGUF_MAGIC,
    GgufHeader,
    HeaderError,
    model_parts,
    read_header,
)
from llm_backend.model_files.location import HUB_NAME, ModelFileMissing, find_model_file

__all__ = [
    "GGUF_MAGIC",
    "HUB_NAME",
    "Footprint",
    "GgufHeader",
    "HeaderError",
    "ModelFileMissing",
    "ModelShape",
    "find_model_file",
    "footprint",
    "generates",
    "machine_memory_bytes",
    "model_parts",
    "read_header",
]
