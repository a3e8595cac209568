"""Limits and permissions, set by the official client and reached by another one."""

import asyncio
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.controllers.administration.conftest import Client, relaying_client, served
from tests.image_server import FakeImageServer

HI: list[Any] = [{"role": "user", "content": "hi"}]
PRICES = {"gpt-x": {"input": 1_000_000}}


async def app_key(client: Client) -> str:
    accounts = client().admin.organization.projects.service_accounts
    return (await accounts.create("proj_default", name="app")).api_key.value


async def test_a_projects_rate_limit_for_a_model_is_openais_429(tmp_path: Path):
    async with relaying_client(tmp_path, requests_per_minute=500) as client:
        limits = client().admin.organization.projects.rate_limits
        usual = (await limits.list_rate_limits("proj_default")).data[0]
        await limits.update_rate_limit(
            usual.id, project_id="proj_default", max_requests_per_1_minute=1
        )
        app = client(await app_key(client))
        raw = await app.chat.completions.with_raw_response.create(model="gpt-x", messages=HI)
        with pytest.raises(openai.RateLimitError) as refused:
            await app.chat.completions.create(model="gpt-x", messages=HI)

    assert usual.max_requests_per_1_minute == 500
    assert raw.headers["x-ratelimit-limit-requests"] == "1"
    assert raw.headers["x-ratelimit-remaining-requests"] == "0"
    assert refused.value.code == "rate_limit_exceeded"
    assert refused.value.type == "requests"
    assert "gpt-x in project proj_default" in refused.value.message
    assert int(refused.value.response.headers["retry-after"]) <= 60


async def test_a_model_that_a_project_may_not_use_is_openais_403(tmp_path: Path):
    async with relaying_client(tmp_path) as client:
        permissions = client().admin.organization.projects.model_permissions
        await permissions.update("proj_default", mode="deny_list", model_ids=["gpt-x"])
        app = client(await app_key(client))
        with pytest.raises(openai.PermissionDeniedError) as refused:
            await app.chat.completions.create(model="gpt-x", messages=HI)
        with pytest.raises(openai.NotFoundError):
            await app.models.retrieve("gpt-x")
        listed = [one.id for one in (await app.models.list()).data]
        await permissions.update("proj_default", mode="allow_list", model_ids=["gpt-x"])
        await app.chat.completions.create(model="gpt-x", messages=HI)
        with pytest.raises(openai.PermissionDeniedError):
            await app.embeddings.create(model="embed-x", input="hi")

    assert (refused.value.code, refused.value.param) == ("model_not_found", "model")
    assert listed == []


async def test_a_title_stands_for_the_checkpoint_that_a_project_may_not_use(tmp_path: Path):
    async with (
        FakeImageServer() as server,
        served(tmp_path, backends=(server.backend(),)) as client,
    ):
        permissions = client().admin.organization.projects.model_permissions
        await permissions.update("proj_default", mode="deny_list", model_ids=["sd-one"])
        app = client(await app_key(client))
        with pytest.raises(openai.PermissionDeniedError):
            await app.images.generate(model="sd-one.safetensors [0123abcd]", prompt="x")
        await app.images.generate(model="sd-two.safetensors", prompt="x")

    assert len(server.drawings) == 1


@pytest.mark.parametrize("background", [False, True])
async def test_the_tool_draws_with_no_checkpoint_that_a_project_may_not_use(
    background: bool, tmp_path: Path
):
    drawn = []
    async with (
        FakeImageServer() as server,
        served(tmp_path, models=("builtin",), backends=(server.backend(),)) as client,
    ):
        permissions = client().admin.organization.projects.model_permissions
        await permissions.update("proj_default", mode="deny_list", model_ids=["sd-one"])
        app = client(await app_key(client))
        for named in ({"model": "sd-one.safetensors [0123abcd]"}, {}, {"model": "sd-two"}):
            tool: Any = {"type": "image_generation", **named}
            answer = await app.responses.create(
                model="builtin", input="Draw a cat.", tools=[tool], tool_choice="required",
                temperature=0, max_output_tokens=400, max_tool_calls=1, background=background,
            )  # fmt: skip
            while answer.status in ("queued", "in_progress"):
                await asyncio.sleep(0.01)
                answer = await app.responses.retrieve(answer.id)
            calls = [one for one in answer.output if one.type == "image_generation_call"]
            drawn.append({one.status for one in calls})

    assert drawn == [{"failed"}, {"failed"}, {"completed"}]
    assert {
        fields["override_settings"]["sd_model_checkpoint"] for _, fields in server.drawings
    } == {"sd-two.safetensors"}


@pytest.mark.parametrize("operation", ["chat", "retrieve"])
async def test_a_model_that_was_perhaps_meant_is_named_to_projects_that_may_use_it(
    operation: str, tmp_path: Path
):
    ask = {
        "retrieve": lambda app: app.models.retrieve("bultin"),
        "chat": lambda app: app.chat.completions.create(model="bultin", messages=HI),
    }[operation]
    async with served(tmp_path, models=("builtin",), load_models="demand") as client:
        app = client(await app_key(client))
        with pytest.raises(openai.NotFoundError) as allowed:
            await ask(app)
        permissions = client().admin.organization.projects.model_permissions
        await permissions.update("proj_default", mode="deny_list", model_ids=["builtin"])
        with pytest.raises(openai.NotFoundError) as denied:
            await ask(app)

    assert "The model `bultin` does not exist. Did you mean builtin?" in allowed.value.message
    assert "The model `bultin` does not exist. See" in denied.value.message


async def test_a_hosted_tool_that_is_forbidden_is_named(tmp_path: Path):
    async with relaying_client(tmp_path) as client:
        tools = client().admin.organization.projects.hosted_tool_permissions
        await tools.update("proj_default", web_search={"enabled": False})
        with pytest.raises(openai.PermissionDeniedError) as refused:
            await client().responses.create(
                model="gpt-x", input="hi", tools=[{"type": "web_search_preview"}]
            )

    assert refused.value.param == "tools[0]"


async def test_with_a_retention_of_zero_nothing_is_stored(tmp_path: Path):
    async with relaying_client(tmp_path) as client:
        await client().chat.completions.create(model="gpt-x", messages=HI)
        stored = (await client().chat.completions.list()).data
        await client().admin.organization.data_retention.update(
            retention_type="zero_data_retention"
        )
        await client().chat.completions.create(model="gpt-x", messages=HI, store=True)
        after = (await client().chat.completions.list()).data

    assert len(stored) == len(after) == 1


async def test_a_spend_limit_that_is_reached_is_openais_insufficient_quota(tmp_path: Path):
    async with relaying_client(tmp_path, prices=PRICES) as client:
        await client().chat.completions.create(model="gpt-x", messages=HI)
        organization = client().admin.organization
        await organization.usage.costs(start_time=1)  # what was used is written now
        put = await organization.spend_limit.update(
            threshold_amount=1, currency="USD", interval="month"
        )
        with pytest.raises(openai.RateLimitError) as refused:
            await client().chat.completions.create(model="gpt-x", messages=HI)

    assert put.enforcement.status == "enforcing"
    assert (refused.value.code, refused.value.type) == ("insufficient_quota", "insufficient_quota")
