"""Settings: one source of truth, and no silent defaults."""

import json
from pathlib import Path

import pytest
import yaml
from pydantic import AliasChoices
from pydantic_settings import NoDecode

from llm_backend.settings import (
    Settings,
    SettingsError,
    environment_with,
    load_settings,
    settings_as_json,
    settings_from_json,
)
from llm_backend.settings.kinds import PREFIX


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LLAMA_MODEL_FILE", "LLAMA_CONTEXT_SIZE", "OPENAI_API_KEY", "OPENAI_BASE_URL",
                 "DATABASE_URL", "LOG_LEVEL"):  # fmt: skip
        monkeypatch.delenv(name, raising=False)


def test_settings_default_to_an_open_server_on_loopback_with_the_builtin_model():
    settings = load_settings()

    assert settings.models == ("builtin",)
    assert settings.is_loopback
    assert settings.api_keys == ()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("cors_origins", "https://chat.example.com/"),
        ("cors_origins", "chat.example.com"),
        ("cors_origins", "https://*.example.com"),
        ("allowed_hosts", "https://llm.example.com"),
        ("allowed_hosts", "*"),
        ("allowed_hosts", "*.example.com"),
    ],
)
def test_settings_refuse_origins_and_hosts_that_no_request_has(name, value):
    with pytest.raises(SettingsError, match=f"`{name}` .* is not "):
        load_settings({name: ["llm.example", value] if name == "allowed_hosts" else [value]})


def test_origins_in_settings_are_compared_as_browsers_write_them():
    given = ["https://Chat.example.com:8443", "null", "*", "app://notes"]

    assert load_settings({"cors_origins": given}).cors_origins == (
        "https://chat.example.com:8443", "null", "*", "app://notes",
    )  # fmt: skip


@pytest.mark.parametrize("value", [float("inf"), "inf"])
def test_settings_refuse_days_without_end(value):
    with pytest.raises(SettingsError, match="`retain_days`"):
        load_settings({"retain_days": value})


def test_settings_flag_overrides_environment_overrides_file(tmp_path, monkeypatch):
    file = tmp_path / "config.yaml"
    file.write_text("port: 1\nslots: 3\nhost: 0.0.0.0\n")
    monkeypatch.setenv("LLM_BACKEND_PORT", "2")
    monkeypatch.setenv("LLM_BACKEND_HOST", "::1")

    settings = load_settings({"port": 3, "host": None}, file)

    assert (settings.port, settings.host, settings.slots) == (3, "::1", 3)


def test_settings_accept_established_environment_names(monkeypatch):
    monkeypatch.setenv("LLAMA_MODEL_FILE", "a.gguf,b.gguf")
    monkeypatch.setenv("LLAMA_CONTEXT_SIZE", "512")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    monkeypatch.setenv("LOG_LEVEL", "WARNING")

    settings = load_settings()

    assert settings.models == ("a.gguf", "b.gguf")
    assert settings.context_tokens == 512
    assert settings.openai_api_key is not None
    assert settings.log_level == "warning"


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        ({"port": 70000}, "port"),
        ({"slots": 0}, "slots"),
        ({"store_chats": "sometimes"}, "store_chats"),
        ({"log_level": "loud"}, "log_level"),
        ({"queue_deadline_s": "soon"}, "queue_deadline_s"),
    ],
)
def test_settings_report_an_invalid_value_with_its_name(flags, named):
    with pytest.raises(SettingsError) as caught:
        load_settings(flags)

    assert f"`{named}`" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_settings_refuse_an_invalid_value_in_the_environment(monkeypatch):
    monkeypatch.setenv("LLAMA_CONTEXT_SIZE", "many")

    with pytest.raises(SettingsError, match="context_tokens"):
        load_settings()


def test_settings_refuse_unknown_names_in_every_source(tmp_path, monkeypatch):
    file = tmp_path / "config.yaml"
    file.write_text("prot: 8000\n")

    with pytest.raises(SettingsError, match=r"`prot`.*Did you mean port\?"):
        load_settings({}, file)
    monkeypatch.setenv("LLM_BACKEND_PROT", "8000")
    with pytest.raises(SettingsError, match=r"LLM_BACKEND_PROT.*Did you mean LLM_BACKEND_PORT"):
        load_settings()


@pytest.mark.parametrize("text", ["- a\n- b\n", "a: [", "\x00"])
def test_settings_refuse_a_file_that_is_no_mapping(tmp_path, text):
    file = tmp_path / "config.yaml"
    file.write_text(text)

    with pytest.raises(SettingsError, match="config file"):
        load_settings({}, file)


@pytest.mark.parametrize("text", ["host: {{ HOST }}\n", "? [a]\n: b\n"])
def test_settings_refuse_a_key_that_is_no_text(tmp_path, text):
    file = tmp_path / "config.yaml"
    file.write_text(text)

    with pytest.raises(SettingsError, match="config file"):
        load_settings({}, file)


def test_settings_merge_several_mappings_of_the_file(tmp_path):
    file = tmp_path / "config.yaml"
    file.write_text("backends:\n- &a {name: one}\n- {<<: *a, url: 'http://b.test', <<: *a}\n")

    with pytest.raises(SettingsError, match="url"):  # of the first, which has none
        load_settings({}, file)


@pytest.mark.parametrize(
    ("text", "name"),
    [("port: 1\nslots: 2\nport: 3\n", "port"), ("models: [{path: a, id: b, path: c}]\n", "path")],
)
def test_settings_refuse_a_key_that_is_twice_in_one_mapping_of_the_file(tmp_path, text, name):
    file = tmp_path / "config.yaml"
    file.write_text(text)

    with pytest.raises(SettingsError, match=f"`{name}` is there twice.*line"):
        load_settings({}, file)


def test_settings_take_a_merged_mapping_whose_keys_are_replaced(tmp_path):
    file = tmp_path / "config.yaml"
    file.write_text(
        "models: [&a {path: builtin, slots: 2}, &b {<<: *a, id: b, slots: 3}, {<<: *b, id: c}]\n"
    )

    entries = [one for one in load_settings({}, file).models if not isinstance(one, str)]

    assert [(one.id, one.slots) for one in entries] == [(None, 2), ("b", 3), ("c", 3)]


def test_settings_refuse_a_missing_file(tmp_path):
    with pytest.raises(SettingsError, match="No such file"):
        load_settings({}, tmp_path / "none.yaml")


def test_settings_hide_secrets_in_repr_and_errors(monkeypatch):
    monkeypatch.setenv("LLM_BACKEND_API_KEYS", "sk-one,sk-two")

    settings = load_settings()

    assert len(settings.api_keys) == 2
    assert "sk-one" not in repr(settings)


def test_settings_data_folder_is_absolute_and_contains_the_database(tmp_path):
    settings = load_settings({"data_dir": tmp_path})

    assert settings.database == f"sqlite:///{tmp_path}/llm-backend.sqlite3"
    assert Settings.model_fields["data_dir"].default == Path("~/.local/share/llm-backend")


def test_settings_as_json_ignore_the_environment_of_the_reader(tmp_path, monkeypatch):
    monkeypatch.setenv("LLM_BACKEND_API_KEYS", "sk-one,sk-two")
    monkeypatch.setenv("DATABASE_URL", "postgresql://me:secret@db/chats")
    given = {"data_dir": tmp_path, "slots": 3, "aliases": ("a", "b=c"), "openai_api_key": None}
    settings = load_settings(given)
    text = settings_as_json(settings)
    monkeypatch.delenv("DATABASE_URL")
    monkeypatch.setenv("LLM_BACKEND_SLOTS", "5")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-other")
    found = settings_from_json(text)

    assert found.model_dump() == settings.model_dump()
    assert found.database == "postgresql://me:secret@db/chats"
    assert found.openai_api_key is None


def test_environment_with_extends_this_environment(monkeypatch):
    monkeypatch.setenv("SOME_NAME", "here")

    found = environment_with({"ANOTHER_NAME": "there"})

    assert (found["SOME_NAME"], found["ANOTHER_NAME"]) == ("here", "there")


VARIABLES = [
    str(variable)
    for name, field in Settings.model_fields.items()
    for variable in (
        field.validation_alias.choices
        if isinstance(field.validation_alias, AliasChoices)
        else [PREFIX + name.upper()]
    )
]


@pytest.mark.parametrize("variable", [*VARIABLES, PREFIX + "OF_ANOTHER_VERSION"])
def test_settings_treat_an_empty_variable_as_unset(monkeypatch, variable):
    without = load_settings()
    monkeypatch.setenv(variable, "")

    assert load_settings().model_dump() == without.model_dump()


LISTS = [name for name, field in Settings.model_fields.items() if NoDecode in field.metadata]


@pytest.mark.parametrize("blank", [" ", ",", " , "])
@pytest.mark.parametrize("name", LISTS)
def test_settings_refuse_a_blank_text_as_a_list(monkeypatch, name, blank):
    monkeypatch.setenv(PREFIX + name.upper(), blank)

    with pytest.raises(SettingsError, match=f"`{name}`.* is empty"):
        load_settings()


def test_settings_empty_key_variable_adds_no_upstream(monkeypatch):
    for variable in VARIABLES:
        monkeypatch.setenv(variable, "")

    settings = load_settings()

    assert not settings.has_relay_upstream
    assert settings.models == ("builtin",)


def test_settings_empty_variable_falls_back_to_the_established_name(monkeypatch):
    monkeypatch.setenv("LLM_BACKEND_OPENAI_API_KEY", "")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-mine")
    key = load_settings().openai_api_key

    assert key is not None
    assert key.get_secret_value() == "sk-mine"


@pytest.mark.parametrize("name", Settings.model_fields)
def test_settings_refuse_an_empty_text_in_the_file_by_name(tmp_path, name):
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump({name: ""}))

    with pytest.raises(SettingsError, match=f"`{name}`.* is empty"):
        load_settings({}, file)


@pytest.mark.parametrize(
    ("setting", "named"),
    [
        ({"models": [""]}, "models"),
        ({"models": [{"path": "builtin", "draft_model": ""}]}, "draft_model"),
        ({"models": [{"path": "builtin", "adapters": {"a": {"path": ""}}}]}, "adapters"),
        ({"api_keys": [""]}, "api_keys"),
        ({"api_keys": [" "]}, "api_keys"),
        ({"cors_origins": [""]}, "cors_origins"),
        ({"openai_api_key": " "}, "openai_api_key"),
        ({"backends": [{"name": "a", "base_url": "http://a", "api_key": ""}]}, "api_key"),
        ({"backends": [{"name": "a", "base_url": "http://a", "api_key_env": "EMPTY"}]}, "backends"),
        ({"backends": [{"name": "a", "base_url": ""}]}, "base_url"),
        ({"backends": [{"name": "a", "base_url": "http://a", "models": ", "}]}, "models"),
    ],
)
def test_settings_refuse_an_empty_text_in_a_nested_setting(tmp_path, monkeypatch, setting, named):
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(setting))
    monkeypatch.setenv("EMPTY", "")

    with pytest.raises(SettingsError, match=named):
        load_settings({}, file)


@pytest.mark.parametrize("is_list", [True, False])
def test_settings_errors_show_no_key_of_a_backend_that_is_written_wrongly(monkeypatch, is_list):
    monkeypatch.setenv("TEAM_KEY", "sk-in-variable")
    backend = {"base_url": "http://a", "api_key_env": "TEAM_KEY"}
    other = {"base_url": "http://a", "api_key": "sk-in-setting"}
    value = [backend] if is_list else other
    monkeypatch.setenv("LLM_BACKEND_BACKENDS", json.dumps(value))

    with pytest.raises(SettingsError, match="backends") as raised:
        load_settings()
    assert "sk-in" not in str(raised.value)


def test_settings_strip_keys_and_refuse_control_characters_in_them(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-one\n")
    key = load_settings().openai_api_key
    assert key is not None
    assert key.get_secret_value() == "sk-one"

    monkeypatch.setenv("OPENAI_API_KEY", "sk-one\nsk-two")
    with pytest.raises(SettingsError, match=r"`openai_api_key` cannot be used: .* control"):
        load_settings()
    monkeypatch.delenv("OPENAI_API_KEY")
    headers = {"X-Empty": "", "X-Tab": "a\tb", "X-Line": "a\n"}
    backend = {"name": "a", "base_url": "http://a", "headers": headers}
    monkeypatch.setenv("LLM_BACKEND_BACKENDS", json.dumps([backend]))
    (read,) = load_settings().backends
    assert [one.get_secret_value() for one in read.headers.values()] == ["", "a\tb", "a"]
    for headers in ({"X-Key": "a\nb"}, {"X-Key\n": "a"}):
        backend = {"name": "a", "base_url": "http://a", "headers": headers}
        monkeypatch.setenv("LLM_BACKEND_BACKENDS", json.dumps([backend]))
        with pytest.raises(SettingsError, match="headers"):
            load_settings()


@pytest.mark.parametrize("name", ["data_dir", "models_dir"])
def test_settings_refuse_a_folder_in_an_unknown_home(name):
    with pytest.raises(SettingsError, match=rf"`{name}` cannot be used: .*~unknown-user"):
        load_settings({name: "~unknown-user/x"})


def test_settings_refuse_an_empty_key_of_a_backend(monkeypatch):
    backend = {"name": "a", "base_url": "http://a", "api_key": ""}
    monkeypatch.setenv("LLM_BACKEND_BACKENDS", json.dumps([backend]))

    with pytest.raises(SettingsError, match="api_key"):
        load_settings()


@pytest.mark.parametrize("given", ["none", ["none"], []])
def test_settings_models_none_serves_no_model(tmp_path, monkeypatch, given):
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump({"models": given}))

    assert load_settings({}, file).models == ()
    monkeypatch.setenv("LLM_BACKEND_MODELS", "none")
    assert load_settings().models == ()
