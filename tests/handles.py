"""Handles of models that are never loaded, for tests that only need a model's name."""

from pathlib import Path

from llm_backend.backends.local.local_handle import LocalModelHandle
from llm_backend.backends.local.model_manager import LocalModelManager
from llm_backend.engine import EngineClient, EngineConfig


def idle_handle(name: str, path: Path) -> LocalModelHandle:
    """Returns a handle of a model manager of its own."""

    async def estimate_bytes() -> int:
        return 0

    return LocalModelHandle(
        LocalModelManager(),
        name,
        lambda socket_path: EngineClient(EngineConfig(model_path=path, socket_path=socket_path)),
        estimate_bytes,
    )
