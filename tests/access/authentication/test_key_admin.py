"""`llm-backend keys`: creates, lists and revokes keys in the database."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from llm_backend.cli import app


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "config.yaml"
    file.write_text(f"data_dir: {tmp_path / 'data'}\n")
    return file


def run(config: Path, *words: str) -> str:
    done = CliRunner().invoke(app, ["keys", *words, "--config", str(config)])
    assert done.exit_code == 0, done.output
    return done.stdout  # the database is named on standard error


def listed(config: Path) -> list[dict[str, object]]:
    return json.loads(run(config, "list", "--json"))


def test_a_key_is_printed_once_listed_without_it_and_revoked(config):
    value = run(config, "create", "ci", "--expires-in-days", "2").strip()
    (key,) = listed(config)
    plain = run(config, "list")
    run(config, "revoke", str(key["id"]))

    assert value.startswith("sk-proj-")
    assert value not in json.dumps(key) + plain
    assert key["id"] in plain
    assert key["hash"] is None
    assert int(key["expires_at"]) - int(key["created_at"]) == 2 * 24 * 3600
    assert listed(config) == []


def test_an_admin_key_belongs_to_no_project(config):
    run(config, "create", "ops", "--admin")

    assert [key["project_id"] for key in listed(config)] == [None]


def test_a_key_for_a_person_is_a_users_in_the_project(config):
    run(config, "create", "laptop", "--user", "ada@example.org")
    run(config, "create", "desktop", "--user", "ada@example.org", "--project", "Default project")
    first, second = listed(config)

    assert first["project_id"] == second["project_id"] == "proj_default"
    assert str(first["user_id"]).startswith("user-")
    assert first["user_id"] == second["user_id"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("create", "x", "--project", "nowhere"), "nowhere"),
        (("create", "x", "--admin", "--user", "a@b.c"), "admin key"),
        (("revoke", "key_none"), "key_none"),
    ],
)
def test_impossible_request_is_refused_in_one_sentence(config, words, told):
    run(config, "create", "first")  # `revoke` does not create a database
    done = CliRunner().invoke(app, ["keys", *words, "--config", str(config)])

    assert done.exit_code == 1
    assert told in done.output
