"""Settings of the database, the object store and retention."""

from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, Field

from llm_backend.settings.kinds import AbsolutePath, Secret, environment_names


class StateSettings(BaseModel):
    """Database, object store, and retention."""

    data_dir: AbsolutePath = Field(
        Path("~/.local/share/llm-backend"), description="Folder of the database and the files."
    )
    database_url: Secret | None = Field(
        None,
        validation_alias=environment_names("database_url", "DATABASE_URL"),
        description="PostgreSQL or SQLite URL; SQLite in the data folder if unset.",
    )
    object_store_url: str | None = Field(
        None,
        description="URL of the bytes of files: `s3://BUCKET/PREFIX`, with credentials and "
        "endpoint from AWS's own variables, or `file:///FOLDER`; a folder in the data folder if "
        "unset. Servers on one database share it.",
    )
    store_chats: Literal["always", "on-request", "never"] = Field(
        "always",
        description="Chats and responses that are stored: all but those with `store: false`, or "
        "only those with `store: true`, or none.",
    )
    retain_days: float | None = Field(
        None,
        gt=0,
        allow_inf_nan=False,
        description="Days after which chats, responses, conversations, batches and files are "
        "deleted unless they are in use. Expired vector stores are deleted after the same time. "
        "Never if unset.",
    )
    history_limit_bytes: int | None = Field(
        None,
        ge=1024 * 1024,
        description="Approximate maximum size in bytes of chats, responses and conversations; the "
        "oldest are deleted. No limit if unset.",
    )
    chat_search_characters: int = Field(
        100_000,
        ge=0,
        description="Number of characters of each stored chat that are indexed for search, "
        "counted from its end. They are indexed after the answers; 0 indexes none.",
    )
    files: Literal["local", "upstream"] = Field(
        "local",
        description="Place of new files and uploads and of the files that are listed: `local` or "
        "`upstream`. Requests for unknown ids are relayed to the upstream, if there is "
        "one.",
    )
    files_limit_bytes: int | None = Field(
        None,
        ge=1024 * 1024,
        description="Maximum total size of files, parts of uploads and audio of voices, in bytes; "
        "files that exceed it are refused. No limit if unset.",
    )
    job_lease_s: float = Field(
        30,
        gt=0,
        description="Seconds after which a job of a crashed server is claimed by another one; "
        "immediately if the database is a file. The vectors of a file whose ingestion was stopped "
        "are removed after twice this time.",
    )

    @property
    def database(self) -> str:
        """The database's URL: the given one, else SQLite in the data folder."""
        if self.database_url is not None:
            return self.database_url.get_secret_value()
        return f"sqlite:///{self.data_dir / 'llm-backend.sqlite3'}"

    @property
    def missing_sqlite_file(self) -> Path | None:
        """SQLite's file as long as there is none; None if it exists, or if the database is a
        server."""
        url = urlsplit(self.database, allow_fragments=False)
        name = url.path.removeprefix("/")
        if url.scheme.partition("+")[0] != "sqlite" or name in ("", ":memory:"):
            return None
        return None if Path(name).exists() else Path(name)

    @property
    def public_database_url(self) -> str:
        """The database's URL without its secrets: password and query."""
        url = urlsplit(self.database)
        user, at, host = url.netloc.rpartition("@")
        return f"{url.scheme}://{user.partition(':')[0]}{at}{host}{url.path}"

    @property
    def has_database_server(self) -> bool:
        """True if the database is a server, which may be down for a while, and not a file."""
        return self.database.startswith("postgres")

    @property
    def object_store(self) -> str:
        """The object store's URL: the given one, else a folder in the data folder."""
        return self.object_store_url or (self.data_dir / "files").as_uri()
