"""Places for models that nobody loads, for tests that only need a model's name."""

from pathlib import Path

from llm_backend.backends.berth import Berth
from llm_backend.backends.engine_room import EngineRoom
from llm_backend.engine import Engine, EngineConfig


def idle_berth(name: str, path: Path) -> Berth:
    """A place in a room of its own."""

    async def needs() -> int:
        return 0

    return Berth(
        EngineRoom(), name, lambda door: Engine(EngineConfig(model_path=path, door=door)), needs
    )
