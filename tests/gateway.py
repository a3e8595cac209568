"""The whole application in front of fake upstreams, in this process and without a local model."""

import contextlib
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

from llm_backend.app import App
from llm_backend.settings import load_settings
from tests.upstream import FakeUpstream, Relay, serving


@contextlib.asynccontextmanager
async def gateway(data_dir: Path, **settings: Any) -> AsyncIterator[Relay]:
    """Served on a free port; `store_chats` is off unless asked for."""
    without = {"models": (), "voice_program": "none", "store_chats": "never"}
    given = {**without, "allowed_hosts": ("relay",), **settings}
    app = App(load_settings({"data_dir": data_dir, **given}))
    async with app.open(), serving(app) as port:
        yield Relay(port=port)


def backend(fake: FakeUpstream, name: str, *models: str, **more: Any) -> dict[str, Any]:
    """An entry of the setting `backends`; the fake must have been opened."""
    return {"name": name, "base_url": fake.base_url, "models": models, "api_key": "k", **more}


@contextlib.contextmanager
def closed_port() -> Iterator[int]:
    """A port without a listener; it stays reserved meanwhile."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]
