"""`llm-backend keys`: API keys in the server's database; a running server sees changes."""

import asyncio
import json
import shlex
import sys
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from llm_backend.cli.database_settings import database_settings, existing_database_settings
from llm_backend.cli.exit import exit_with_error
from llm_backend.cli.lists import print_entry
from llm_backend.cli.options import Config, DataDir
from llm_backend.durations import DAY_S
from llm_backend.installation import command

if TYPE_CHECKING:
    from llm_backend.access import NewKey
    from llm_backend.store.administration import Administration, StoredKey

T = TypeVar("T")

_LONGEST_DAYS = 36_500  # `list` cannot print the dates of a far future

FIRST_KEY = (
    "this is the first key of this database. From now on, a server on this database refuses "
    "requests without a key."
)

commands = typer.Typer(help="API keys of clients.")


@commands.command("create")
def keys_create(
    name: Annotated[str, typer.Argument(help="Name of the key.")] = "Secret Key",
    admin: Annotated[
        bool, typer.Option("--admin", help="An admin key, which cannot call models.")
    ] = False,
    project: Annotated[
        str | None, typer.Option(help="Id or name of its project; the default project if unset.")
    ] = None,
    user: Annotated[
        str | None, typer.Option(help="E-mail address of its user, whose invite this accepts.")
    ] = None,
    expires_in_days: Annotated[
        int | None, typer.Option(min=1, max=_LONGEST_DAYS, help="Days until it expires.")
    ] = None,
    description: Annotated[
        str | None, typer.Option(help="Purpose of the key; printed by `list`.")
    ] = None,
    config: Config = None,
    data_dir: DataDir = None,
) -> None:
    """Create a key and print it: it is printed only once and not stored."""
    from llm_backend.access.authentication.key_admin import create_key

    words = {"NAME": name, "--project": project, "--user": user, "--description": description}
    for word, value in words.items():
        if value is not None and not value.strip():
            exit_with_error(f"{word} is empty: give it a value or leave it out.", status=2)
    if user is not None and "@" not in user:
        exit_with_error(f"`{user}` is not an e-mail address.")
    if admin and (project or user):
        exit_with_error(
            "An admin key belongs to no project and no user: leave out --project and --user."
        )
    lifetime_s = None if expires_in_days is None else expires_in_days * DAY_S

    async def create(administration: "Administration") -> "tuple[NewKey, int]":
        key = await create_key(
            administration,
            name,
            is_admin=admin,
            project=project,
            email=user,
            lifetime_s=lifetime_s,
            description=description,
        )
        return key, len((await administration.load_snapshot(())).keys)

    key, number = _run_on_database(create, config, data_dir, creates=True)
    if number == 1:
        print(f"llm-backend: {FIRST_KEY}", file=sys.stderr)
    print(key.value)


@commands.command("list")
def keys_list(
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON list.")] = False,
    config: Config = None,
    data_dir: DataDir = None,
) -> None:
    """List all keys, without their secret parts."""

    async def load_keys(administration: "Administration") -> "list[StoredKey]":
        return list((await administration.load_snapshot(())).keys)

    keys = _run_on_database(load_keys, config, data_dir)
    if as_json:
        print(json.dumps([{**vars(key), "hash": None} for key in keys], indent=2))
        return
    if not keys:
        create_command = _keys_command("create NAME", config, data_dir)
        print(f"llm-backend: there is no key: `{create_command}` makes one.", file=sys.stderr)
    for key in keys:
        times = (_creation(key), _expiry(key), _last_use(key))
        columns = (key.project_id or "admin", *times, key.description)
        print_entry(f"{key.id}  {key.shown}  {key.name}", *columns)


@commands.command("revoke")
def keys_revoke(
    id: Annotated[str, typer.Argument(help="Id of the key, as printed by `list`.")],
    config: Config = None,
    data_dir: DataDir = None,
) -> None:
    """Revoke a key: requests with it are refused."""
    from llm_backend.access.authentication.key_admin import revoke_key

    _run_on_database(lambda administration: revoke_key(administration, id), config, data_dir)
    print(f"{id} is revoked.")


def _creation(key: "StoredKey") -> str:
    return time.strftime("created %Y-%m-%d", time.gmtime(key.created_at))


def _last_use(key: "StoredKey") -> str:
    if key.last_used_at is None:
        return "never used"
    return time.strftime("last used %Y-%m-%d", time.gmtime(key.last_used_at))


def _expiry(key: "StoredKey") -> str:
    if key.expires_at is None:
        return "no expiry"
    return time.strftime("until %Y-%m-%d", time.gmtime(key.expires_at))


def _keys_command(words: str, config: Config, data_dir: DataDir) -> str:
    """Return the command of `keys` with these words, for the same database."""
    flags = {"--config": config, "--data-dir": data_dir}
    given = [word for name, value in flags.items() if value for word in (name, str(value))]
    return command(" ".join(["keys", words, *map(shlex.quote, given)]))


def _run_on_database(
    work: "Callable[[Administration], Awaitable[T]]",
    config: Config,
    data_dir: DataDir,
    *,
    creates: bool = False,
) -> T:
    """Run `work` on the server's database. A missing database is an error, unless `creates`."""
    from llm_backend.access.authentication.key_admin import UnknownName
    from llm_backend.app import open_administration
    from llm_backend.store import Missing, StoreError

    load = database_settings if creates else existing_database_settings
    settings = load(config, data_dir)

    async def run() -> T:
        async with open_administration(settings) as administration:
            return await work(administration)

    try:
        return asyncio.run(run())
    except Missing as error:
        listing = _keys_command("list", config, data_dir)
        exit_with_error(f"No key has the id `{error.id}`: see `{listing}`.")
    except (StoreError, UnknownName) as error:
        exit_with_error(str(error))
