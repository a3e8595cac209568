"""The local engine: continuous batching over llama.cpp, in a process of its own.

`Engine` is the entry point. It knows tokens and text, not HTTP, not OpenAI, not SQL.
"""

from llm_backend.engine import messages
from llm_backend.engine.client import Engine, Generation
from llm_backend.engine.config import EngineConfig
from llm_backend.engine.errors import EngineDown, EngineError, EngineRefused, EngineStartError
from llm_backend.engine.process.lifecycle import EngineState

__all__ = [
    "Engine",
    "EngineConfig",
    "EngineDown",
    "EngineError",
    "EngineRefused",
    "EngineStartError",
    "EngineState",
    "Generation",
    "messages",
]
