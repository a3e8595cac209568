"""Registry: names, aliases and routes resolve to local models and upstreams."""

from pathlib import Path

import pytest

from llm_backend.backends import registry as registries
from llm_backend.backends.base import ModelCard
from llm_backend.backends.local.local_model import LocalModel
from llm_backend.backends.registry import Registry, UpstreamModel
from llm_backend.errors import ModelNotFound
from llm_backend.model_files.gguf_voice import GgufVoiceFiles
from tests.handles import idle_handle


def local(name: str, tmp_path) -> LocalModel:
    card = ModelCard(id=name, created_at=1, owned_by="test", more=(("description", "d"),))
    return LocalModel(card, idle_handle(name, tmp_path / name))


class Far:
    """Upstreams with these models."""

    def __init__(self, *names: str) -> None:
        self._names = names

    def serves(self, model, operation=()):
        return model in self._names

    async def models(self):
        return [{"id": name, "object": "model"} for name in self._names]


def test_a_name_and_its_aliases_are_one_model(tmp_path):
    model = local("a", tmp_path)
    registry = Registry([model], {"gpt-4": "a", "gpt-3.5-turbo": "a"})

    assert registry.for_model("a") is registry.for_model("gpt-4") is model
    assert [card.id for card in registry.local_cards()] == ["a", "gpt-4", "gpt-3.5-turbo"]
    assert ("alias_of", "a") in registry.local_cards()[1].more


def test_other_names_are_of_upstreams_or_unknown(tmp_path):
    with pytest.raises(ModelNotFound):
        Registry([local("a", tmp_path)]).for_model("b")
    with pytest.raises(ModelNotFound):
        Registry([], {}, Far("b")).for_model("c")
    assert Registry([], {}, Far("b")).for_model("b") is None


async def test_local_names_hide_the_upstreams(tmp_path):
    registry = Registry([local("a", tmp_path)], {}, Far("a", "b"))

    assert [model["id"] for model in await registry.upstream_models()] == ["b"]


def test_route_without_steps_is_not_listed(tmp_path):
    kept = local("b", tmp_path)
    registry = Registry([local("a", tmp_path), kept], {}, None, {"gone": ["a"], "left": ["a", "b"]})

    registry.serve([kept], {})

    assert [card.id for card in registry.local_cards()] == ["b", "left"]


async def test_route_returns_its_steps_and_hides_models_of_its_name(tmp_path):
    model, far = local("a", tmp_path), UpstreamModel(model="b", upstream="x")
    registry = Registry([model], {}, Far("b", "fast"), {"fast": ["a", far], "a": ["a", far]})

    assert registry.targets("fast") == registry.targets("a") == [model, far]
    assert registry.targets("b") == (UpstreamModel(model="b"),)
    assert [card.id for card in registry.local_cards()] == ["a", "fast"]
    assert [model["id"] for model in await registry.upstream_models()] == ["b"]


def test_local_target_of_a_route_is_found_at_any_position(tmp_path):
    model, far = local("a", tmp_path), UpstreamModel(model="b")
    registry = Registry([model], {}, Far("b"), {"pair": [far, "a"], "far": [far]})

    assert registry.local_target("pair") is registry.local_target("a") is model
    assert registry.local_target("far") is None


def test_local_names_are_those_with_a_local_target(tmp_path):
    routes = {"mixed": [UpstreamModel(model="x"), "a"], "far": [UpstreamModel(model="x")], "b": []}
    registry = Registry([local("a", tmp_path), local("b", tmp_path)], {"c": "a"}, None, routes)

    assert sorted(registry.local_names()) == ["a", "b", "c", "mixed"]
    assert all(registry.local_target(name) for name in registry.local_names())


@pytest.mark.parametrize(("installed", "usable"), [("audio", True), ("voices", False)])
def test_a_voice_is_usable_with_its_own_extra(tmp_path, monkeypatch, installed, usable):
    card = ModelCard(id="a", created_at=1, owned_by="test")
    voice = GgufVoiceFiles(
        name="a", family="f", model=Path("a"), projector=Path("p"), samples=(), language="en",
        file_bytes=1, cell_bytes=1, table_bytes=1, takes_samples=True, samples_codes=False,
        languages={},
    )  # fmt: skip
    model = LocalModel(card, idle_handle("a", tmp_path / "a"), voice=voice)
    monkeypatch.setattr(registries, "is_installed", lambda extra: extra == installed)

    registry = Registry([model], {"tts-1": "a"})
    assert bool(registry.usable) is usable
    assert [card.id for card in registry.local_cards()] == (["a", "tts-1"] if usable else [])


def test_names_stand_for_models_also_after_a_reload(tmp_path):
    small, big = local("small", tmp_path), local("big", tmp_path)
    routes = {"both": ["fast", UpstreamModel(model="far")]}
    registry = Registry([small, big], {"fast": "small"}, None, routes)
    before = [registry.models_of(name) for name in ("small", "fast", "both", "other")]
    registry.serve([small, big], {"fast": "big"})

    assert before == [("small",), ("small",), ("small", "far"), ()]
    assert [registry.models_of(name) for name in ("fast", "both")] == [("big",), ("big", "far")]
