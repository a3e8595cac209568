"""`llm-backend keys`: in which database they are, and what the first one means."""

import json
import time

import pytest
from typer.testing import CliRunner, Result

from llm_backend.cli import app
from llm_backend.settings import Settings


def run(*words: str) -> Result:
    return CliRunner().invoke(app, [*words])


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.setenv("LLM_BACKEND_DATA_DIR", str(tmp_path / "usual"))
    monkeypatch.delenv("DATABASE_URL", raising=False)


def test_keys_are_stored_in_the_given_data_folder(tmp_path):
    folder = tmp_path / "other"
    made = run("keys", "create", "laptop", "--data-dir", str(folder))
    there = run("keys", "list", "--data-dir", str(folder))
    usual = run("keys", "list")

    assert made.exit_code == 0
    assert "laptop" in there.stdout
    assert usual.stdout == ""
    assert str(folder / "llm-backend.sqlite3") in made.stderr
    assert str(tmp_path / "usual" / "llm-backend.sqlite3") in usual.stderr


def test_keys_list_shows_the_description_and_the_last_use_of_a_key():
    run("keys", "create", "laptop", "--description", "CI of the website")
    run("keys", "create", "phone")

    _, laptop, _, phone = run("keys", "list").stdout.splitlines()
    created_at = json.loads(run("keys", "list", "--json").stdout)[0]["created_at"]

    today = f"created {time.strftime('%Y-%m-%d', time.gmtime(created_at))}"
    assert laptop.strip() == f"proj_default; {today}; no expiry; never used; CI of the website"
    assert phone == f"    proj_default; {today}; no expiry; never used"


@pytest.mark.parametrize(
    "words",
    [(" ",), ("a", "--project", ""), ("a", "--user", ""), ("a", "--description", "")],
)
def test_keys_create_refuses_an_empty_text_with_status_2(words):
    made = run("keys", "create", *words)

    assert (made.exit_code, made.stdout) == (2, "")
    assert f"{'NAME' if words == (' ',) else words[1]} is empty" in made.stderr


def test_keys_create_refuses_an_expiry_that_no_calendar_has():
    ran = run("keys", "create", "--expires-in-days", "36501")

    assert ran.exit_code == 2
    assert "36500" in ran.stderr
    assert run("keys", "create", "--expires-in-days", "36500").exit_code == 0
    assert "until 21" in run("keys", "list").stdout


def test_keys_create_refuses_a_user_without_an_address():
    made = run("keys", "create", "--user", "anna")

    assert (made.exit_code, made.stdout) == (1, "")
    assert "`anna` is not an e-mail address." in made.stderr


def test_keys_refuse_an_empty_data_folder_with_status_2(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    listed = run("keys", "list", "--data-dir", "")

    assert listed.exit_code == 2
    assert "It is empty" in listed.stderr
    assert list(tmp_path.iterdir()) == []


def test_keys_list_fits_80_columns():
    run("keys", "create", "nightly build " * 8, "--description", "CI of the website " * 9)

    lines = run("keys", "list").stdout.splitlines()

    assert max(map(len, lines)) <= 80
    assert " ".join(" ".join(lines).split()).count("CI of the website") == 9


def test_keys_create_prints_only_the_key_to_standard_output():
    first, second = run("keys", "create"), run("keys", "create")

    for made in (first, second):
        assert made.stdout.startswith("sk-")
        assert len(made.stdout.split()) == 1
    assert "the first key" in first.stderr
    assert "the first key" not in second.stderr


@pytest.mark.parametrize("words", [("keys", "list"), ("db", "migrate"), ("db", "recount")])
def test_keys_and_db_commands_print_their_database(words, tmp_path):
    ran = run(*words, "--data-dir", str(tmp_path / "here"))

    line, *_ = ran.stderr.splitlines()
    assert line == f"llm-backend: the database is sqlite:///{tmp_path}/here/llm-backend.sqlite3"


@pytest.mark.parametrize(
    ("url", "public"),
    [
        ("postgresql://me:secret@db:5432/state?password=x", "postgresql://me@db:5432/state"),
        ("postgresql://db/state", "postgresql://db/state"),
        ("sqlite:////var/state.db", "sqlite:////var/state.db"),
    ],
)
def test_public_database_url_has_no_password(url, public):
    assert Settings(database_url=url).public_database_url == public


def test_hints_of_keys_are_commands_for_the_same_database(tmp_path):
    folder = str(tmp_path / "a folder")
    run("db", "migrate", "--data-dir", folder)
    none = run("keys", "list", "--data-dir", folder)
    unknown = run("keys", "revoke", "nope", "--data-dir", folder)

    assert none.stdout == ""
    assert f"keys create NAME --data-dir '{folder}'` makes one." in none.stderr
    assert f"keys list --data-dir '{folder}'`." in unknown.stderr


@pytest.mark.parametrize(
    "words", [("keys", "list"), ("keys", "revoke", "a"), ("db", "recount"), ("db", "current")]
)
def test_commands_that_read_the_database_create_none(words, tmp_path):
    ran = run(*words, "--data-dir", str(tmp_path / "tpyo"))

    assert ran.exit_code == 1
    assert "There is no database yet" in ran.stderr
    assert f"creates {tmp_path}/tpyo/llm-backend.sqlite3." in ran.stderr
    assert not (tmp_path / "tpyo").exists()


@pytest.mark.parametrize(
    "words", [("keys", "list"), ("db", "recount"), ("db", "current"), ("models", "list")]
)
def test_commands_that_read_the_database_create_none_at_its_url(words, tmp_path, monkeypatch):
    monkeypatch.setenv("DATABASE_URL", f"sqlite:///{tmp_path}/typo.db")

    ran = run(*words)

    assert ran.exit_code == (words[0] != "models")
    assert words[0] == "models" or f"creates {tmp_path}/typo.db." in ran.stderr
    assert not (tmp_path / "typo.db").exists()
