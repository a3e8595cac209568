"""The library of ONNX voices and of models of speakers."""

from typing import Any

from llm_backend.engine.model import LoadError

LIBRARY_ERRORS = (RuntimeError, ValueError, IndexError)
"""What the library raises."""


def load_library() -> Any:
    """Imports and returns the library, at its first use. Raises `LoadError` where it is missing."""
    try:
        import sherpa_onnx
    except ImportError as error:
        raise LoadError("The package `sherpa-onnx` is not installed.") from error
    return sherpa_onnx
