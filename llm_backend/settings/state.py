"""What is remembered, where, and for how long."""

from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, Field, field_validator

from llm_backend.settings.kinds import Secret, also

__all__ = ["StateSettings"]


class StateSettings(BaseModel):
    """What is remembered, where, and for how long."""

    data_dir: Path = Field(
        Path("~/.local/share/llm-backend"), description="Folder of the database and the files."
    )
    database_url: Secret | None = Field(
        None,
        validation_alias=also("database_url", "DATABASE_URL"),
        description="PostgreSQL or SQLite URL; SQLite in the data folder where none is given.",
    )
    object_store_url: str | None = Field(
        None,
        description="Where the bytes of files are: `s3://BUCKET/PREFIX`, with credentials and "
        "endpoint from AWS's own variables, or `file:///FOLDER`; a folder in the data folder where "
        "none is given. Servers on one database share it.",
    )
    store_chats: Literal["always", "on-request", "never"] = Field(
        "always",
        description="Which chats and responses are stored: all but `store: false`, or only "
        "`store: true`, or none.",
    )
    retain_days: float | None = Field(
        None,
        gt=0,
        description="Days after which chats, responses, conversations, batches and files are "
        "forgotten, unless something uses them, and vector stores that have expired; never where "
        "unset.",
    )
    history_limit_bytes: int | None = Field(
        None,
        ge=1024 * 1024,
        description="Bytes of chats, responses and conversations that are kept at most, about; the "
        "oldest are forgotten. Any number where unset.",
    )
    files: Literal["local", "upstream"] = Field(
        "local",
        description="Where new files and uploads are kept, and listed; ids that are not known here "
        "are asked of the upstream, if there is one.",
    )
    files_limit_bytes: int | None = Field(
        None,
        ge=1024 * 1024,
        description="Bytes of files and parts of uploads that are kept at most; what would be over "
        "is refused. Any number where unset.",
    )
    job_lease_s: float = Field(
        30,
        gt=0,
        description="Seconds after which work that a dead server was at is taken up by another; at "
        "once where the database is a file.",
    )

    @field_validator("data_dir")
    @classmethod
    def _expand(cls, value: Path) -> Path:
        return value.expanduser().absolute()

    @property
    def database(self) -> str:
        """The database's URL: the one given, else SQLite in the data folder."""
        if self.database_url is not None:
            return self.database_url.get_secret_value()
        return f"sqlite:///{self.data_dir / 'llm-backend.sqlite3'}"

    @property
    def shown_database(self) -> str:
        """The same without what is secret of it: its password, and its query."""
        url = urlsplit(self.database)
        person, at, host = url.netloc.rpartition("@")
        return f"{url.scheme}://{person.partition(':')[0]}{at}{host}{url.path}"

    @property
    def has_database_server(self) -> bool:
        """Whether the database is a server, which may be down for a while, and not a file."""
        return self.database.startswith("postgres")

    @property
    def object_store(self) -> str:
        """The object store's URL: the one given, else a folder in the data folder."""
        return self.object_store_url or (self.data_dir / "files").as_uri()
