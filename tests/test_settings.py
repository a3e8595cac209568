"""Settings: one source of truth, and no silent defaults."""

import json
from pathlib import Path

import pytest
import yaml
from pydantic import AliasChoices

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


def test_without_anything_it_is_open_on_loopback_with_the_built_in_model():
    settings = load_settings()

    assert settings.models == ("builtin",)
    assert settings.is_loopback
    assert settings.api_keys == ()


def test_a_flag_beats_the_environment_which_beats_the_file(tmp_path, monkeypatch):
    file = tmp_path / "config.yaml"
    file.write_text("port: 1\nslots: 3\nhost: 0.0.0.0\n")
    monkeypatch.setenv("LLM_BACKEND_PORT", "2")
    monkeypatch.setenv("LLM_BACKEND_HOST", "::1")

    settings = load_settings({"port": 3, "host": None}, file)

    assert (settings.port, settings.host, settings.slots) == (3, "::1", 3)


def test_the_names_that_users_know_already_are_read(monkeypatch):
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
def test_a_bad_value_is_one_sentence_that_names_the_setting(flags, named):
    with pytest.raises(SettingsError) as caught:
        load_settings(flags)

    assert f"`{named}`" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_bad_value_in_the_environment_is_an_error_too(monkeypatch):
    monkeypatch.setenv("LLAMA_CONTEXT_SIZE", "many")

    with pytest.raises(SettingsError, match="context_tokens"):
        load_settings()


def test_a_name_that_is_no_setting_is_refused_wherever_it_stands(tmp_path, monkeypatch):
    file = tmp_path / "config.yaml"
    file.write_text("prot: 8000\n")

    with pytest.raises(SettingsError, match="`prot`"):
        load_settings({}, file)
    monkeypatch.setenv("LLM_BACKEND_PROT", "8000")
    with pytest.raises(SettingsError, match="LLM_BACKEND_PROT"):
        load_settings()


@pytest.mark.parametrize("text", ["- a\n- b\n", "a: [", "\x00"])
def test_a_file_that_holds_no_settings_is_refused(tmp_path, text):
    file = tmp_path / "config.yaml"
    file.write_text(text)

    with pytest.raises(SettingsError, match="config file"):
        load_settings({}, file)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(SettingsError, match="No such file"):
        load_settings({}, tmp_path / "none.yaml")


def test_secrets_do_not_show_in_print_or_error(monkeypatch):
    monkeypatch.setenv("LLM_BACKEND_API_KEYS", "sk-one,sk-two")

    settings = load_settings()

    assert len(settings.api_keys) == 2
    assert "sk-one" not in repr(settings)


def test_the_data_folder_is_absolute_and_holds_the_database(tmp_path):
    settings = load_settings({"data_dir": tmp_path})

    assert settings.database == f"sqlite:///{tmp_path}/llm-backend.sqlite3"
    assert Settings.model_fields["data_dir"].default == Path("~/.local/share/llm-backend")


def test_another_process_gets_the_same_settings_whatever_its_environment(tmp_path, monkeypatch):
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


def test_a_child_gets_this_environment_and_more(monkeypatch):
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
def test_empty_variable_is_unset(monkeypatch, variable):
    without = load_settings()
    monkeypatch.setenv(variable, "")

    assert load_settings().model_dump() == without.model_dump()


def test_no_variable_that_is_empty_makes_an_upstream(monkeypatch):
    for variable in VARIABLES:
        monkeypatch.setenv(variable, "")

    settings = load_settings()

    assert not settings.has_upstream
    assert settings.models == ("builtin",)


def test_empty_variable_of_ours_leaves_the_name_that_users_know(monkeypatch):
    monkeypatch.setenv("LLM_BACKEND_OPENAI_API_KEY", "")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-mine")
    key = load_settings().openai_api_key

    assert key is not None
    assert key.get_secret_value() == "sk-mine"


@pytest.mark.parametrize("name", Settings.model_fields)
def test_empty_text_in_the_file_is_refused_by_name(tmp_path, name):
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
    ],
)
def test_empty_text_inside_a_setting_is_refused(tmp_path, monkeypatch, setting, named):
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(setting))
    monkeypatch.setenv("EMPTY", "")

    with pytest.raises(SettingsError, match=named):
        load_settings({}, file)


def test_backend_in_a_variable_has_no_empty_key(monkeypatch):
    backend = {"name": "a", "base_url": "http://a", "api_key": ""}
    monkeypatch.setenv("LLM_BACKEND_BACKENDS", json.dumps([backend]))

    with pytest.raises(SettingsError, match="api_key"):
        load_settings()


@pytest.mark.parametrize("given", ["none", ["none"], []])
def test_no_model_is_served_where_that_is_said(tmp_path, monkeypatch, given):
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump({"models": given}))

    assert load_settings({}, file).models == ()
    monkeypatch.setenv("LLM_BACKEND_MODELS", "none")
    assert load_settings().models == ()
