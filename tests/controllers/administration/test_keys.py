"""Projects, service accounts and keys, as the official client administers them."""

import openai
import pytest

from tests.controllers.administration.conftest import Client

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_a_key_of_a_new_service_account_is_shown_once_and_opens_its_project(client: Client):
    projects = client().admin.organization.projects
    project = await projects.create(name="Search")
    made = await projects.service_accounts.create(project.id, name="indexer")

    assert made.api_key.value.startswith("sk-svcacct-")
    assert (await client(made.api_key.value).models.list()).data == []
    (listed,) = (await projects.api_keys.list(project.id)).data
    assert listed.id == made.api_key.id
    assert listed.owner.service_account.id == made.id
    assert made.api_key.value not in listed.model_dump_json()


async def test_a_deleted_key_opens_nothing_any_more(client: Client):
    projects = client().admin.organization.projects
    project = await projects.create(name="Search")
    made = await projects.service_accounts.create(project.id, name="indexer")
    deleted = await projects.api_keys.delete(made.api_key.id, project_id=project.id)

    assert deleted.deleted
    with pytest.raises(openai.AuthenticationError):
        await client(made.api_key.value).models.list()


async def test_a_deleted_service_account_loses_its_keys(client: Client):
    projects = client().admin.organization.projects
    project = await projects.create(name="Search")
    made = await projects.service_accounts.create(project.id, name="indexer")
    second = await projects.service_accounts.api_keys.create(
        made.id, project_id=project.id, name="second"
    )
    await projects.service_accounts.delete(made.id, project_id=project.id)

    for value in (made.api_key.value, second.value):
        with pytest.raises(openai.AuthenticationError):
            await client(value).models.list()
    assert (await projects.service_accounts.list(project.id)).data == []


async def test_a_service_account_is_changed_and_may_be_made_without_a_key(client: Client):
    projects = client().admin.organization.projects
    project = await projects.create(name="Search")
    made = await projects.service_accounts.create(
        project.id, name="indexer", create_service_account_only=True
    )
    changed = await projects.service_accounts.update(
        made.id, project_id=project.id, name="crawler", role="owner"
    )
    found = await projects.service_accounts.retrieve(made.id, project_id=project.id)

    assert made.api_key is None
    assert (changed.name, changed.role) == (found.name, found.role) == ("crawler", "owner")


async def test_keys_of_an_archived_project_are_refused(client: Client):
    projects = client().admin.organization.projects
    project = await projects.create(name="Search")
    made = await projects.service_accounts.create(project.id, name="indexer")
    archived = await projects.archive(project.id)

    assert archived.status == "archived"
    with pytest.raises(openai.AuthenticationError, match="archived"):
        await client(made.api_key.value).models.list()
    assert project.id not in [one.id for one in (await projects.list()).data]
    everything = await projects.list(include_archived=True)
    assert project.id in [one.id for one in everything.data]
    with pytest.raises(openai.BadRequestError, match="archived"):
        await projects.service_accounts.create(project.id, name="late")


async def test_a_service_account_of_an_archived_project_is_deleted_but_not_changed(client: Client):
    projects = client().admin.organization.projects
    project = await projects.create(name="Search")
    accounts = projects.service_accounts
    made = await accounts.create(project.id, name="indexer")
    await projects.archive(project.id)

    with pytest.raises(openai.BadRequestError, match="archived") as refused:
        await accounts.update(made.id, project_id=project.id, name="crawler")
    assert refused.value.param == "project_id"
    assert (await accounts.retrieve(made.id, project_id=project.id)).name == "indexer"
    assert (await accounts.delete(made.id, project_id=project.id)).deleted


async def test_projects_are_paged_renamed_and_found(client: Client):
    projects = client().admin.organization.projects
    made = [await projects.create(name=f"number {number}") for number in range(5)]
    await projects.update(made[3].id, name="renamed")
    names = [one.name async for one in projects.list(limit=2)]

    assert names == ["Default project", *(f"number {n}" for n in range(3)), "renamed", "number 4"]
    assert (await projects.retrieve(made[3].id)).name == "renamed"


async def test_an_admin_key_administers_and_calls_no_model(client: Client):
    keys = client().admin.organization.admin_api_keys
    made = await keys.create(name="ops", expires_in_seconds=60)
    admin = client(made.value)
    listed = await admin.admin.organization.admin_api_keys.list()

    assert [one.id for one in listed.data] == [made.id]
    assert made.expires_at == made.created_at + 60
    with pytest.raises(openai.PermissionDeniedError):
        await admin.models.list()
    await keys.delete(made.id)
    with pytest.raises(openai.AuthenticationError):
        await admin.admin.organization.admin_api_keys.list()


async def test_a_project_key_administers_nothing(client: Client):
    projects = client().admin.organization.projects
    made = await projects.service_accounts.create("proj_default", name="app")

    with pytest.raises(openai.PermissionDeniedError, match="admin key"):
        await client(made.api_key.value).admin.organization.projects.list()


async def test_unknown_objects_are_named_by_their_id(client: Client):
    organization = client().admin.organization
    project = await organization.projects.create(name="Search")
    accounts = organization.projects.service_accounts
    elsewhere = await accounts.create("proj_default", name="app")

    for asked, id in [
        (organization.projects.retrieve("proj_none"), "proj_none"),
        (organization.admin_api_keys.retrieve("key_none"), "key_none"),
        (organization.projects.api_keys.retrieve("key_x", project_id=project.id), "key_x"),
        (accounts.retrieve(elsewhere.id, project_id=project.id), elsewhere.id),
        (accounts.retrieve(elsewhere.id, project_id="proj_none"), "proj_none"),
    ]:
        with pytest.raises(openai.NotFoundError, match=id):
            await asked


@pytest.mark.parametrize(
    ("query", "param"), [({"limit": -1}, "limit"), ({"after": "proj_none"}, "after")]
)
async def test_a_page_that_cannot_be_is_refused_by_its_field(client: Client, query, param):
    with pytest.raises(openai.BadRequestError) as refused:
        await client().admin.organization.projects.list(**query)

    assert refused.value.param == param


async def test_unsupported_fields_of_projects_are_refused_by_name(client: Client):
    with pytest.raises(openai.BadRequestError) as refused:
        await client().admin.organization.projects.create(
            name="x", residency="EU_STORAGE_PROCESSING"
        )

    assert refused.value.param == "residency"
    with pytest.raises(openai.BadRequestError, match="default project"):
        await client().admin.organization.projects.archive("proj_default")


async def test_keys_of_service_accounts_expire_at_the_time_that_newer_clients_send(client: Client):
    projects = client().admin.organization.projects
    project = await projects.create(name="Search")
    accounts = projects.service_accounts
    made = await accounts.create(project.id, name="indexer", expires_in_seconds=1)
    second = await accounts.api_keys.create(made.id, project_id=project.id, expires_in_seconds=1)
    lasting = await accounts.api_keys.create(made.id, project_id=project.id)
    with pytest.raises(openai.BadRequestError) as nothing_expires:
        await accounts.create(
            project.id, name="x", create_service_account_only=True, expires_in_seconds=1
        )

    for key in (made.api_key.value, second.value):
        await until_refused(client(key))
    assert (await client(lasting.value).models.list()).data == []
    assert nothing_expires.value.param == "expires_in_seconds"


async def until_refused(one: openai.AsyncOpenAI) -> None:
    while True:
        try:
            await one.models.list()
        except openai.AuthenticationError:
            return


async def test_a_place_of_a_project_is_refused_by_name(client: Client):
    with pytest.raises(openai.BadRequestError) as refused:
        await client().admin.organization.projects.create(name="x", geography="eu")

    assert refused.value.param == "geography"
