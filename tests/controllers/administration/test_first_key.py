"""The first key of an open server, made over HTTP: the answer and the log say what it means."""

from typing import Any

import openai
import pytest

from tests.controllers.administration.conftest import served

NOTICE, EVENT = "x-llm-backend-notice", "warning keys_required"


@pytest.mark.parametrize("kind", ["admin", "service account"])
async def test_the_first_key_comes_with_a_note_that_it_closes_the_server(tmp_path, capfd, kind):
    async with served(tmp_path, api_keys=(), allowed_hosts=("server",)) as client:
        organization = client("none").admin.organization
        if kind == "admin":
            made: Any = await organization.admin_api_keys.with_raw_response.create(name="mine")
        else:
            accounts = organization.projects.service_accounts.with_raw_response
            made = await accounts.create("proj_default", name="indexer")
        with pytest.raises(openai.AuthenticationError):
            await client("none").models.list()

    assert "without a key" in made.headers[NOTICE]
    assert capfd.readouterr().err.count(EVENT) == 1


async def test_a_key_beside_others_closes_nothing(tmp_path, capfd):
    async with served(tmp_path) as client:
        keys = client().admin.organization.admin_api_keys.with_raw_response
        made = await keys.create(name="mine")

    assert NOTICE not in made.headers
    assert EVENT not in capfd.readouterr().err
