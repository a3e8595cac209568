"""`/healthz` asks for a restart where nothing else can help."""

from types import SimpleNamespace

import pytest

from llm_backend.backends.base import ModelCard
from llm_backend.controllers.monitoring.operations import get_health
from llm_backend.engine import EngineClient, EngineStartError
from llm_backend.errors import EngineUnavailable
from tests.engine.conftest import config


async def test_liveness_fails_for_an_unsupervised_engine(tmp_path):
    card = ModelCard(id="small", created_at=0, owned_by="me")
    async with EngineClient(config(tmp_path, command=("no\0program",))) as engine:
        models = [
            SimpleNamespace(card=card, engine=engine),
            SimpleNamespace(card=card, engine=None),
        ]
        services = SimpleNamespace(registry=SimpleNamespace(local=models))
        with pytest.raises(EngineStartError):
            await engine.ready()

        with pytest.raises(
            EngineUnavailable, match="small cannot be restarted any more: restart the server"
        ):
            await get_health(services, None)
