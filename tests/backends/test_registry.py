"""Model names and aliases lead to who answers."""

import pytest

from llm_backend.backends.base import ModelCard
from llm_backend.backends.local import LocalModel
from llm_backend.backends.registry import Registry
from llm_backend.engine import Engine, EngineConfig
from llm_backend.errors import ModelNotFound, UpstreamFailed


def local(name: str, tmp_path) -> LocalModel:
    card = ModelCard(id=name, created_at=1, owned_by="test", more=(("description", "d"),))
    return LocalModel(card, Engine(EngineConfig(model_path=tmp_path / name)))


class Far:
    """An upstream with these models, or one that is down."""

    def __init__(self, *names: str, is_down: bool = False) -> None:
        self._names, self._is_down = names, is_down

    async def models(self):
        if self._is_down:
            raise UpstreamFailed("down")
        return [{"id": name, "object": "model"} for name in self._names]


def test_a_name_and_its_aliases_are_one_model(tmp_path):
    model = local("a", tmp_path)
    registry = Registry([model], {"gpt-4": "a", "gpt-3.5-turbo": "a"})

    assert registry.for_model("a") is registry.for_model("gpt-4") is model
    assert [card.id for card in registry.local_cards()] == ["a", "gpt-4", "gpt-3.5-turbo"]
    assert ("alias_of", "a") in registry.local_cards()[1].more


def test_other_names_are_the_upstreams_or_nobodys(tmp_path):
    with pytest.raises(ModelNotFound):
        Registry([local("a", tmp_path)]).for_model("b")
    assert Registry([], {}, Far("b")).for_model("b") is None


async def test_local_names_hide_the_upstreams(tmp_path):
    registry = Registry([local("a", tmp_path)], {}, Far("a", "b"))

    assert [model["id"] for model in await registry.upstream_models()] == ["b"]


async def test_an_upstream_that_is_down_hides_only_its_own(tmp_path):
    registry = Registry([local("a", tmp_path)], {}, Far(is_down=True))

    assert await registry.upstream_models() == []
    assert [card.id for card in registry.local_cards()] == ["a"]
