"""What the settings say of upstreams: checked at the start, with a sentence for what cannot be."""

import pytest

from llm_backend.app.served_upstreams import operations, routes, upstream_configs
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
    return routes(settings, local, upstream_configs(settings))


def test_the_short_form_is_one_more_upstream_for_all_models():
    settings = settings_of({"name": "a", "models": "x, y"}, openai_api_key="k")
    a, short = upstream_configs(settings)

    assert (a.name, a.models, a.serves_any) == ("a", ("x", "y"), False)
    assert (short.name, short.api_key, short.serves_any) == ("openai", "k", True)


def test_a_key_is_read_from_where_it_is(monkeypatch, tmp_path):
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
        ({"name": "a", "kind": "azure"}, "`azure` backend needs `models`"),
        ({"name": "a", "api_version": "1"}, "is only for the kind `azure`"),
        ({"name": "a", "api_key_env": "NOT_SET_ANYWHERE"}, "NOT_SET_ANYWHERE"),
        ({"name": "a", "api_key_file": "/not/there"}, "/not/there"),
        ({"name": "a", "api_key": "secret", "api_key_env": "HOME"}, "key once"),
    ],
)
def test_what_cannot_be_used_ends_the_start_with_its_place(backend, says):
    with pytest.raises(SettingsError) as refused:
        settings_of(backend)

    assert says in str(refused.value)
    assert "secret" not in str(refused.value)


def test_a_variable_that_is_no_json_is_named(monkeypatch):
    monkeypatch.setenv("LLM_BACKEND_ROUTES", "{fast")

    with pytest.raises(SettingsError, match="`routes` holds no JSON"):
        load_settings()


def test_two_of_one_name_are_refused():
    with pytest.raises(SettingsError, match="Two backends are named `openai`"):
        upstream_configs(settings_of({"name": "openai"}, openai_api_key="k"))


def test_routes_lead_to_local_models_and_to_upstreams():
    found = routes_of(
        {"name": "a", "models": ["far"]}, {"name": "b"},
        routes={"smart": "far, near, other@a"}, aliases=["gpt=far", "mine=near"],
    )  # fmt: skip

    assert found == {
        "gpt": [UpstreamModel(model="far")],
        "smart": [UpstreamModel(model="far"), "near", UpstreamModel(model="other", upstream="a")],
    }


@pytest.mark.parametrize(
    ("steps", "says"), [("unknown", "which no backend serves"), ("", "leads nowhere")]
)
def test_a_route_to_nobody_is_refused(steps, says):
    with pytest.raises(SettingsError, match=says):
        routes_of({"name": "a", "models": ["far"]}, routes={"smart": steps})


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"Paintings": "a"}, "neither an operationId nor a tag"),
        ({"Images": "b"}, "which is not a backend"),
    ],
)
def test_operations_are_the_documents_and_their_backends_are_there(given, says):
    settings = settings_of({"name": "a"}, operations=given)

    with pytest.raises(SettingsError, match=says):
        operations(settings, upstream_configs(settings), load_document().operations.values())
