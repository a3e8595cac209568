"""llama.cpp: the only package that imports llama_cpp. Only one thread may use it, as a second
OpenMP team would halve the speed."""

from llm_backend.engine.llama.cells import STATE_FORMAT
from llm_backend.engine.llama.draft import load_draft_model
from llm_backend.engine.llama.log import NativeLog, capture_log
from llm_backend.engine.llama.model import LlamaModel

__all__ = ["STATE_FORMAT", "LlamaModel", "NativeLog", "capture_log", "load_draft_model"]
