"""Upstreams, routes and operations of the settings, and the errors of invalid ones."""

import pytest

from llm_backend.app.upstreams import bound_operations, model_routes, upstream_configs
from llm_backend.backends.registry import UpstreamModel
from llm_backend.contract import load_document
from llm_backend.settings import (
    SettingsError,
    load_settings,
    settings_as_json,
    settings_from_json,
)

HOST = "http://127.0.0.1:9/v1"


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)


def settings_of(*backends: dict[str, object], **more: object):
    given = [{"base_url": HOST, **backend} for backend in backends]
    return load_settings({"backends": given, **more})


def routes_of(*backends: dict[str, object], local: tuple[str, ...] = ("near",), **more: object):
    settings = settings_of(*backends, **more)
    return model_routes(settings, local, upstream_configs(settings))


def test_upstream_of_the_short_form_serves_all_models():
    settings = settings_of({"name": "a", "models": "x, y"}, openai_api_key="k")
    a, short = upstream_configs(settings)

    assert (a.name, a.models, a.serves_any) == ("a", ("x", "y"), False)
    assert (short.name, short.api_key, short.serves_any) == ("openai", "k", True)


def test_upstream_key_is_read_from_variable_or_file(monkeypatch, tmp_path):
    monkeypatch.setenv("A_KEY", "from the environment")
    (tmp_path / "key").write_text("from a file\n")
    settings = settings_of(
        {"name": "a", "api_key_env": "A_KEY"}, {"name": "b", "api_key_file": f"{tmp_path}/key"}
    )

    assert [one.api_key for one in upstream_configs(settings)] == [
        "from the environment", "from a file"
    ]  # fmt: skip
    assert settings_from_json(settings_as_json(settings)).backends == settings.backends


@pytest.mark.parametrize(
    ("backend", "says"),
    [
        ({"name": "a b"}, "backends[0].name"),
        ({"name": "a", "base_url": "10.0.0.1:8000"}, "backends[0].base_url"),
        ({"name": "a", "weight": 0}, "backends[0].weight"),
        ({"name": "a", "concurrency": 0}, "backends[0].concurrency"),
        ({"name": "a", "wire": "smoke"}, "backends[0].wire"),
        ({"name": "a", "colour": "red"}, "backends[0].colour"),
        ({"name": "a", "kind": "azure"}, "`azure` upstream needs `models`"),
        ({"name": "a", "api_version": "1"}, "is only for the kinds `azure` and `anthropic`"),
        ({"name": "a", "kind": "anthropic", "wire": "chat"}, "leave `wire` out"),
        ({"name": "a", "api_key_env": "NOT_SET_ANYWHERE"}, "NOT_SET_ANYWHERE"),
        ({"name": "a", "api_key_file": "/not/there"}, "/not/there"),
        ({"name": "a", "api_key": "secret", "api_key_env": "HOME"}, "key once"),
    ],
)
def test_upstreams_report_an_invalid_value_with_its_path(backend, says):
    with pytest.raises(SettingsError) as refused:
        settings_of(backend)

    assert says in str(refused.value)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("url", ["http://h:8o00", "http://h:80000/v1", "http://[::1"])
def test_upstreams_refuse_a_base_url_that_is_none(url):
    settings = settings_of({"name": "a", "base_url": url})

    with pytest.raises(SettingsError, match=r"upstream `a` cannot be used: .* base URL"):
        upstream_configs(settings)


def test_upstreams_name_a_variable_that_is_not_json(monkeypatch):
    monkeypatch.setenv("LLM_BACKEND_ROUTES", "{fast")

    with pytest.raises(SettingsError, match="`routes` holds no JSON"):
        load_settings()


def test_upstreams_refuse_duplicate_names():
    with pytest.raises(SettingsError, match="`openai`, the second by `OPENAI_API_KEY`; rename"):
        upstream_configs(settings_of({"name": "openai"}, openai_api_key="k"))


def test_routes_target_local_models_and_upstreams():
    found = routes_of(
        {"name": "a", "models": ["far"]}, {"name": "b"},
        routes={"smart": "far, near, other@a"}, aliases=["gpt=far", "mine=near"],
    )  # fmt: skip

    assert found == {
        "gpt": [UpstreamModel(model="far")],
        "smart": [UpstreamModel(model="far"), "near", UpstreamModel(model="other", upstream="a")],
    }


@pytest.mark.parametrize("model", ["listed@2024", "@cf/meta/llama", "@cf/meta/llama@a"])
def test_routes_target_models_whose_names_contain_an_at_sign(model):
    [[found]] = routes_of(
        {"name": "a"}, {"name": "b", "models": ["*@2024"]}, routes={"smart": model}
    ).values()  # fmt: skip

    assert isinstance(found, UpstreamModel)
    assert found.model == model.removesuffix("@a")


@pytest.mark.parametrize(
    ("targets", "says"),
    [
        ("unknown", "not a local model and which no upstream serves.$"),
        ("neer", "Did you mean near?"),
        ("", "`routes.smart` cannot be used: it is empty"),
        ((), "leads nowhere"),
    ],
)
def test_routes_refuse_a_target_without_backend(targets, says):
    with pytest.raises(SettingsError, match=says):
        routes_of({"name": "a", "models": ["far"]}, routes={"smart": targets})


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"Paintings": "a"}, "neither an operationId nor a tag"),
        ({"Images": "b"}, "which is not an upstream"),
    ],
)
def test_operations_refuse_unknown_operations_and_backends(given, says):
    settings = settings_of({"name": "a"}, operations=given)

    with pytest.raises(SettingsError, match=says):
        bound_operations(settings, upstream_configs(settings), load_document().operations.values())
