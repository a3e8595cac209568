"""`llm-backend keys`: who may use the server, in its database; a server that runs follows."""

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from llm_backend.cli.database import database_settings
from llm_backend.cli.failing import fail
from llm_backend.cli.options import Config, DataDir

if TYPE_CHECKING:
    from llm_backend.access import NewKey
    from llm_backend.store.administration import Administration, StoredKey

__all__ = ["commands"]

T = TypeVar("T")

DAY_S = 24 * 60 * 60
FIRST_KEY = (
    "this is the first key of this database. Servers that use it and were open let nobody in "
    "without a key from now on."
)

commands = typer.Typer(help="Keys that clients must send.")


@commands.command("create")
def keys_create(
    name: Annotated[str, typer.Argument(help="What the key is called.")] = "Secret Key",
    admin: Annotated[bool, typer.Option("--admin", help="A key that only administers.")] = False,
    project: Annotated[
        str | None, typer.Option(help="Id or name of its project; the default one where unset.")
    ] = None,
    user: Annotated[
        str | None, typer.Option(help="E-mail address of whom it is for; accepts an invite.")
    ] = None,
    expires_in_days: Annotated[int | None, typer.Option(min=1, help="Days it is good for.")] = None,
    config: Config = None,
    data_dir: DataDir = None,
) -> None:
    """Make a key and print it: it is shown this once and kept nowhere."""
    from llm_backend.access.authentication.key_admin import create_key

    if admin and (project or user):
        fail("An admin key belongs to no project and no user: leave --project and --user out.")
    lifetime_s = None if expires_in_days is None else expires_in_days * DAY_S

    async def create(administration: "Administration") -> "tuple[NewKey, int]":
        key = await create_key(
            administration,
            name,
            is_admin=admin,
            project=project,
            email=user,
            lifetime_s=lifetime_s,
        )
        return key, len((await administration.load_known(())).keys)

    key, number = _in_database(create, config, data_dir)
    if number == 1:
        print(f"llm-backend: {FIRST_KEY}", file=sys.stderr)
    print(key.value)


@commands.command("list")
def keys_list(
    as_json: Annotated[bool, typer.Option("--json", help="As a JSON list.")] = False,
    config: Config = None,
    data_dir: DataDir = None,
) -> None:
    """Print all keys, without what would let anybody in."""

    async def known(administration: "Administration") -> "list[StoredKey]":
        return list((await administration.load_known(())).keys)

    keys = _in_database(known, config, data_dir)
    if as_json:
        print(json.dumps([{**vars(key), "hash": None} for key in keys], indent=2))
        return
    for key in keys:
        belongs = key.project_id or "administers"
        print(f"{key.id}  {key.shown}  {belongs}  {_until(key)}  {key.name}")


@commands.command("revoke")
def keys_revoke(
    id: Annotated[str, typer.Argument(help="The key's id, as `list` tells it.")],
    config: Config = None,
    data_dir: DataDir = None,
) -> None:
    """Take a key back: nobody is let in with it any more."""
    from llm_backend.access.authentication.key_admin import revoke_key

    _in_database(lambda administration: revoke_key(administration, id), config, data_dir)
    print(f"{id} is revoked.")


def _until(key: "StoredKey") -> str:
    if key.expires_at is None:
        return "for good"
    return time.strftime("until %Y-%m-%d", time.gmtime(key.expires_at))


def _in_database(
    work: "Callable[[Administration], Awaitable[T]]", config: Config, data_dir: DataDir
) -> T:
    from llm_backend.access.authentication.key_admin import UnknownName
    from llm_backend.app import open_administration
    from llm_backend.store import Missing, StoreError

    settings = database_settings(config, data_dir)

    async def run() -> T:
        async with open_administration(settings) as administration:
            return await work(administration)

    try:
        return asyncio.run(run())
    except Missing as error:
        fail(f"No key has the id `{error.id}`: see `llm-backend keys list`.")
    except (StoreError, UnknownName) as error:
        fail(str(error))
