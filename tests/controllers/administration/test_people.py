"""Users, invites and the users of projects."""

from pathlib import Path

import openai
import pytest
from sqlalchemy import Connection, delete

from llm_backend.access.authentication.key_admin import create_key
from llm_backend.store import Database
from llm_backend.store.administration import Administration
from llm_backend.store.tables.administration import administered
from tests.controllers.administration.conftest import Client

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def key_for(folder: Path, email: str) -> str:
    """A key as the shell makes it, beside the server."""
    async with Database.open(f"sqlite:///{folder / 'llm-backend.sqlite3'}") as database:
        key = await create_key(Administration(database), "laptop", email=email)
    return key.value


async def test_an_invite_is_accepted_by_the_first_key_for_its_address(client: Client, folder: Path):
    organization = client().admin.organization
    project = await organization.projects.create(name="Search")
    invite = await organization.invites.create(
        email="ada@example.org",
        role="owner",
        projects=[{"id": project.id, "role": "owner"}],
    )
    await key_for(folder, "ada@example.org")
    (user,) = (await organization.users.list(emails=["ada@example.org"])).data

    assert invite.status == "pending"
    assert (await organization.invites.retrieve(invite.id)).status == "accepted"
    assert user.role == "owner"
    (member,) = (await organization.projects.users.list(project.id)).data
    assert (member.id, member.role) == (user.id, "owner")
    with pytest.raises(openai.ConflictError):
        await organization.invites.delete(invite.id)


async def test_a_deleted_user_loses_keys_and_memberships(client: Client, folder: Path):
    organization = client().admin.organization
    project = await organization.projects.create(name="Search")
    await key_for(folder, "ada@example.org")
    (user,) = (await organization.users.list()).data
    await organization.projects.users.create(project.id, user_id=user.id, role="member")
    deleted = await organization.users.delete(user.id)

    assert deleted.deleted
    assert (await organization.projects.users.list(project.id)).data == []
    assert (await organization.projects.api_keys.list("proj_default")).data == []


async def test_a_users_roles_are_changed(client: Client, folder: Path):
    organization = client().admin.organization
    await key_for(folder, "ada@example.org")
    (user,) = (await organization.users.list()).data
    changed = await organization.users.update(user.id, role="owner")
    member = await organization.projects.users.update(
        user.id, project_id="proj_default", role="owner"
    )

    assert changed.role == member.role == "owner"
    (key,) = (await organization.projects.api_keys.list("proj_default")).data
    assert key.owner.user.email == "ada@example.org"
    with pytest.raises(openai.BadRequestError) as refused:
        await organization.users.update(user.id, role="king")
    assert refused.value.param == "role"


async def test_a_user_of_an_archived_project_is_removed_but_not_changed(
    client: Client, folder: Path
):
    organization = client().admin.organization
    users = organization.projects.users
    project = await organization.projects.create(name="Search")
    await key_for(folder, "ada@example.org")
    (user,) = (await organization.users.list()).data
    await users.create(project.id, user_id=user.id, role="member")
    await organization.projects.archive(project.id)

    with pytest.raises(openai.BadRequestError, match="archived") as refused:
        await users.update(user.id, project_id=project.id, role="owner")
    assert refused.value.param == "project_id"
    assert (await users.retrieve(user.id, project_id=project.id)).role == "member"
    assert (await users.delete(user.id, project_id=project.id)).deleted


async def test_a_user_removed_from_a_project_loses_its_keys(client: Client, folder: Path):
    organization = client().admin.organization
    value = await key_for(folder, "ada@example.org")
    (user,) = (await organization.users.list()).data
    await organization.projects.users.delete(user.id, project_id="proj_default")

    with pytest.raises(openai.AuthenticationError):
        await client(value).models.list()
    assert (await organization.users.retrieve(user.id)).email == "ada@example.org"


async def test_a_user_joins_a_project_once(client: Client, folder: Path):
    organization = client().admin.organization
    await key_for(folder, "ada@example.org")
    users = organization.projects.users

    with pytest.raises(openai.ConflictError):
        await users.create("proj_default", email="ada@example.org", role="member")
    with pytest.raises(openai.NotFoundError) as refused:
        await users.create("proj_default", email="bob@example.org", role="member")
    assert refused.value.param == "email"
    with pytest.raises(openai.NotFoundError, match="user-none"):
        await users.retrieve("user-none", project_id="proj_default")


async def test_a_pending_invite_can_be_deleted(client: Client):
    invites = client().admin.organization.invites
    invite = await invites.create(email="ada@example.org", role="reader")
    await invites.delete(invite.id)

    assert (await invites.list()).data == []
    with pytest.raises(openai.BadRequestError) as refused:
        await invites.create(email="unknown", role="reader")
    assert refused.value.param == "email"


async def test_a_member_whose_user_is_gone_is_unknown(client: Client, folder: Path):
    organization = client().admin.organization
    await key_for(folder, "ada@example.org")
    (user,) = (await organization.users.list()).data
    async with Database.open(f"sqlite:///{folder / 'llm-backend.sqlite3'}") as database:
        await database.write(_delete_row, id=user.id)
    users = organization.projects.users

    with pytest.raises(openai.NotFoundError, match=user.id):
        await users.retrieve(user.id, project_id="proj_default")
    with pytest.raises(openai.NotFoundError, match=user.id):
        await users.update(user.id, project_id="proj_default")
    with pytest.raises(openai.NotFoundError, match=user.id):
        await users.update(user.id, project_id="proj_default", role="owner")


def _delete_row(connection: Connection, id: str) -> None:
    connection.execute(delete(administered).where(administered.c.id == id))
