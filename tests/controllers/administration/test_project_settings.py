"""Single-valued settings of projects and the organization, spend alerts, the audit log."""

import asyncio
from typing import Any

import openai
import pytest

from tests.controllers.administration.conftest import ROOT_KEY, Client

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_model_permissions_are_set_and_deleted(client: Client):
    permissions: Any = client().admin.organization.projects.model_permissions
    before = await permissions.retrieve("proj_default")
    put = await permissions.update("proj_default", mode="allow_list", model_ids=["gpt-x"])
    found = await permissions.retrieve("proj_default")
    await permissions.delete("proj_default")

    assert (before.mode, before.model_ids) == ("deny_list", [])
    assert put == found
    assert (found.mode, found.model_ids) == ("allow_list", ["gpt-x"])
    assert await permissions.retrieve("proj_default") == before


async def test_hosted_tools_are_forbidden_one_by_one(client: Client):
    tools = client().admin.organization.projects.hosted_tool_permissions
    await tools.update("proj_default", web_search={"enabled": False})
    put = await tools.update("proj_default", mcp={"enabled": False})

    assert put == await tools.retrieve("proj_default")
    assert not put.web_search.enabled
    assert not put.mcp.enabled
    assert put.file_search.enabled


async def test_hosted_tools_that_are_forbidden_at_the_same_time_all_are(client: Client):
    tools = client().admin.organization.projects.hosted_tool_permissions
    await asyncio.gather(
        tools.update("proj_default", web_search={"enabled": False}),
        tools.update("proj_default", mcp={"enabled": False}),
        tools.update("proj_default", file_search={"enabled": False}),
    )
    found = await tools.retrieve("proj_default")

    assert not any((found.web_search.enabled, found.mcp.enabled, found.file_search.enabled))


async def test_retention_is_the_organizations_unless_a_project_has_its_own(client: Client):
    organization = client().admin.organization
    usual = await organization.data_retention.retrieve()
    of_project = await organization.projects.data_retention.retrieve("proj_default")
    await organization.data_retention.update(retention_type="zero_data_retention")
    await organization.projects.data_retention.update("proj_default", retention_type="none")

    assert (usual.type, of_project.type) == ("modified_abuse_monitoring", "organization_default")
    assert (await organization.data_retention.retrieve()).type == "zero_data_retention"
    found = await organization.projects.data_retention.retrieve("proj_default")
    assert found.type == "none"


async def test_spend_alerts_are_kept_apart_by_project(client: Client):
    organization = client().admin.organization
    given = {
        "threshold_amount": 500,
        "currency": "USD",
        "interval": "month",
        "notification_channel": {"type": "email", "recipients": ["ops@example.org"]},
    }
    own = await organization.projects.spend_alerts.create("proj_default", **given)
    others = await organization.spend_alerts.create(**given)
    changed = await organization.spend_alerts.update(
        others.id, **{**given, "threshold_amount": 900}
    )

    assert changed.threshold_amount == 900
    assert [one.id for one in (await organization.spend_alerts.list()).data] == [others.id]
    listed = await organization.projects.spend_alerts.list("proj_default")
    assert [one.id for one in listed.data] == [own.id]
    with pytest.raises(openai.NotFoundError, match=own.id):
        await organization.spend_alerts.retrieve(own.id)
    await organization.spend_alerts.delete(others.id)
    assert (await organization.spend_alerts.list()).data == []


async def test_a_projects_spend_alert_is_got_changed_and_deleted(client: Client):
    alerts = client().admin.organization.projects.spend_alerts
    given = {
        "threshold_amount": 500,
        "currency": "USD",
        "interval": "month",
        "notification_channel": {"type": "email", "recipients": ["ops@example.org"]},
    }
    made = await alerts.create("proj_default", **given)
    changed = await alerts.update(
        made.id, project_id="proj_default", **{**given, "threshold_amount": 900}
    )
    got = await alerts.retrieve(made.id, project_id="proj_default")
    deleted = await alerts.delete(made.id, project_id="proj_default")

    assert (got, got.threshold_amount) == (changed, 900)
    assert deleted.deleted
    with pytest.raises(openai.NotFoundError, match=made.id):
        await alerts.retrieve(made.id, project_id="proj_default")


async def test_a_page_before_an_object_ends_with_the_one_in_front_of_it(client: Client):
    alerts = client().admin.organization.spend_alerts
    made = [
        await alerts.create(
            threshold_amount=amount,
            currency="USD",
            interval="month",
            notification_channel={"type": "email", "recipients": []},
        )
        for amount in range(4)
    ]
    page = await alerts.list(before=made[3].id, limit=2)
    empty = await alerts.list(limit=0)

    assert [one.id for one in page.data] == [made[1].id, made[2].id]
    assert page.has_more
    assert (empty.data, empty.has_more) == ([], True)


async def test_rate_limits_are_of_models_that_there_are(client: Client):
    limits = client().admin.organization.projects.rate_limits

    assert (await limits.list_rate_limits("proj_default")).data == []
    for id in ("rl-none", "rl-owner/none"):
        with pytest.raises(openai.NotFoundError, match=f"rate limit has the id `{id}`"):
            await limits.update_rate_limit(
                id, project_id="proj_default", max_requests_per_1_minute=1
            )


async def test_every_change_is_in_the_audit_log(client: Client):
    organization = client().admin.organization
    project = await organization.projects.create(name="Search")
    account = await organization.projects.service_accounts.create(project.id, name="indexer")
    await organization.projects.model_permissions.update(
        project.id, mode="deny_list", model_ids=["gpt-x"]
    )
    entries = [one async for one in organization.audit_logs.list(limit=2)]
    ours = await organization.audit_logs.list(
        project_ids=[project.id], event_types=["service_account.created"]
    )

    assert [one.type for one in entries] == [
        "project.updated", "service_account.created", "project.created", "project.created",
    ]  # fmt: skip
    assert [one.service_account_created.id for one in ours.data] == [account.id]
    assert ours.data[0].project.name == "Search"
    assert ours.data[0].actor.api_key.id
    assert ROOT_KEY not in ours.data[0].model_dump_json()


@pytest.mark.parametrize(
    ("query", "count"),
    [
        ({"effective_at": {"gt": 2_000_000_000_000}}, 0),
        ({"effective_at": {"gte": 1, "lte": 2_000_000_000_000}}, 1),
        ({"effective_at": {"lt": 1}}, 0),
        ({"resource_ids": ["proj_default"]}, 1),
        ({"actor_emails": ["unknown@example.org"]}, 0),
        ({"actor_ids": ["key_none"]}, 0),
    ],
)
async def test_the_audit_log_is_filtered(client: Client, query, count):
    found = await client().admin.organization.audit_logs.list(**query)

    assert len(found.data) == count


async def test_spend_limits_are_set_returned_and_deleted(client: Client):
    organization = client().admin.organization
    given = {"threshold_amount": 500, "currency": "USD", "interval": "month"}
    resources: list[tuple[Any, dict[str, str]]] = [
        (organization.spend_limit, {}),
        (organization.projects.spend_limit, {"project_id": "proj_default"}),
    ]
    for limits, path in resources:
        with pytest.raises(openai.NotFoundError, match="no spend limit"):
            await limits.retrieve(**path)
        put = await limits.update(**path, **given)
        assert put == await limits.retrieve(**path)
        assert (put.threshold_amount, put.enforcement.status) == (500, "inactive")
        assert (await limits.delete(**path)).deleted
        with pytest.raises(openai.NotFoundError):
            await limits.delete(**path)
