"""One frozen `Settings`: flags over environment over config file over defaults.

The only reader of the environment and of the config file. A value that cannot be used ends the
start with one sentence (`SettingsError`), never with a silent default.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    AliasChoices,
    Discriminator,
    Field,
    SecretStr,
    Tag,
    ValidationError,
    field_validator,
)
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)
from pydantic_settings.exceptions import SettingsError as UnreadableVariable

from llm_backend.backend_settings import BackendSettings
from llm_backend.model_settings import Bytes, CacheType, ModelSettings, RequestDefaults
from llm_backend.price_settings import Price
from llm_backend.prompt_settings import PromptSettings

__all__ = [
    "BUILTIN",
    "Settings",
    "SettingsError",
    "SettingsSource",
    "configuration_markdown",
    "environment_with",
    "load_settings",
    "settings_as_json",
    "settings_from_json",
]

BUILTIN = "builtin"
PREFIX = "LLM_BACKEND_"

Names = Annotated[tuple[str, ...], NoDecode]
"""A list that the environment gives as comma-separated words."""

Models = Annotated[
    tuple[
        Annotated[
            Annotated[str, Tag("")] | Annotated[ModelSettings, Tag("entry")],
            Discriminator(lambda given: "" if isinstance(given, str) else "entry"),
        ],
        ...,
    ],
    NoDecode,
]
"""Models by the paths of their files, or by all that is set for them."""


class SettingsError(Exception):
    """A setting cannot be used; the message is one sentence that says which and what to do."""


def _also(name: str, *others: str) -> AliasChoices:
    """A field's names in the environment: ours first, then those that its users know already."""
    return AliasChoices(PREFIX + name.upper(), *others)


class Settings(BaseSettings):
    """Everything that can be set, each with its default and unit."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        frozen=True,
        extra="forbid",
        populate_by_name=True,
        protected_namespaces=(),
    )

    # where it listens and what it keeps
    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(8000, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    tls_certificate: Path | None = Field(
        None, description="PEM file of the certificate to serve with; without one it is plain HTTP."
    )
    tls_key: Path | None = Field(
        None, description="PEM file of the certificate's key; the certificate's own where unset."
    )
    tls_chain: Path | None = Field(
        None, description="PEM file of the certificates between it and a known authority."
    )
    tls_password: SecretStr | None = Field(
        None, description="What the key is encrypted with, if it is."
    )
    data_dir: Path = Field(
        Path("~/.local/share/llm-backend"), description="Folder of the database and the files."
    )
    database_url: SecretStr | None = Field(
        None,
        validation_alias=_also("database_url", "DATABASE_URL"),
        description="PostgreSQL or SQLite URL; SQLite in the data folder where none is given.",
    )
    api_keys: Annotated[tuple[SecretStr, ...], NoDecode] = Field(
        (),
        description="Keys for everything: they administer, and call models within the default "
        "project. Further ones are made by `llm-backend keys create`; open on loopback where there "
        "is none.",
    )
    keys_refresh_s: float = Field(
        2,
        gt=0,
        description="Seconds after which what another process changes at keys and projects is "
        "known at the latest.",
    )
    requests_per_minute: int | None = Field(
        None,
        ge=1,
        description="Requests a minute of a project to one model, where the project has no rate "
        "limit of its own for it; no limit where unset.",
    )
    tokens_per_minute: int | None = Field(
        None, ge=1, description="Tokens a minute of a project with one model, likewise."
    )
    key_requests_per_minute: int | None = Field(
        None, ge=1, description="Requests a minute of one key to all models; no limit where unset."
    )
    key_tokens_per_minute: int | None = Field(
        None, ge=1, description="Tokens a minute of one key with all models, likewise."
    )
    key_concurrent_requests: int | None = Field(
        None, ge=1, description="Requests of one key that a process answers at once, likewise."
    )
    project_concurrent_requests: int | None = Field(
        None, ge=1, description="Requests of one project that a process answers at once, likewise."
    )
    concurrent_requests: int | None = Field(
        None,
        ge=1,
        description="Requests to models that a process answers at once; further ones wait, and "
        "keys take turns. No limit but the models' own queues where unset.",
    )
    waiting_requests: int = Field(
        1000, ge=0, description="Requests that wait for one of `concurrent_requests` at most."
    )
    waiting_deadline_s: float = Field(
        60, gt=0, description="Seconds that such a request waits at most."
    )
    run_deadline_s: float | None = Field(
        None,
        gt=0,
        description="Seconds that a request to a model runs at most, without its waiting; no limit "
        "where unset.",
    )
    usage_days: int = Field(
        400, ge=32, description="Days that usage is kept; a month at least, for spend limits."
    )
    prices: dict[str, Price] = Field(
        {},
        description="What models cost, by name, in US dollars for a million tokens: "
        "`{MODEL: {input: 2.5, cached_input: 1.25, output: 10}}`. Costs and spend limits are "
        "reckoned with them.",
    )
    allow_open: bool = Field(False, description="Listen beyond loopback although there is no key.")
    allowed_hosts: Names = Field(
        (),
        description="Names that requests may call this server by; without a key on loopback only "
        "loopback's, otherwise any, where unset.",
    )
    cors_origins: Names = Field((), description="Origins that browsers may call from.")

    web: bool = Field(True, description="Serve the chat page at `/` and Swagger UI at `/docs`.")

    # local models
    models: Models = Field(
        (BUILTIN,),
        validation_alias=_also("models", "LLAMA_MODEL_FILE"),
        description="GGUF files to serve; `builtin` is the built-in model, empty serves none. In "
        "the file an entry may also say all that the next table lists.",
    )
    prompts: Mapping[str, PromptSettings] = Field(
        {},
        description="Prompts by the ids that a response's `prompt` has; in the file only, as the "
        "last table lists.",
    )
    models_dir: Path | None = Field(
        None,
        description="Folder of model files that `llm-backend models` keeps; `models` in the data "
        "folder where unset.",
    )
    aliases: Names = Field(
        (), description="Further names, `NAME` for the first model or `NAME=MODEL`."
    )
    tool_formats: Names = Field(
        (),
        description="How models write tool calls, `FORMAT` for all of them or `MODEL=FORMAT`; told "
        "from the chat template where unset.",
    )
    load_models: Literal["start", "demand"] = Field(
        "start",
        description="When models are loaded: as many as fit when the server starts, or each by its "
        "first request.",
    )
    idle_unload_s: float | None = Field(
        None,
        gt=0,
        description="Seconds without a request after which a model is unloaded, until it is asked "
        "again; never where unset.",
    )
    memory_budget: Bytes | None = Field(
        None,
        description="Memory that local models may take together, `24 GB` say; all that the machine "
        "has where unset. A model that needs room has those unloaded that were unused longest.",
    )
    load_deadline_s: float = Field(
        120, gt=0, description="Seconds a request waits for its model to be loaded at most."
    )
    context_tokens: int | None = Field(
        None,
        ge=16,
        validation_alias=_also("context_tokens", "LLAMA_CONTEXT_SIZE"),
        description="Tokens one sequence can hold; the model's own, at most 4096, where unset.",
    )
    cache_type: CacheType = Field(
        "f16", description="Type of the numbers in KV cells; `q8_0` takes half of the memory."
    )
    flash_attention: bool | None = Field(
        None, description="Fused attention; whatever suits the model where unset."
    )
    slots: int = Field(8, ge=1, le=256, description="Sequences a model runs at once.")
    batch_tokens: int = Field(512, ge=8, description="Tokens one forward pass computes at most.")
    speculation: bool = Field(
        True,
        description="Compute ahead where a text repeats something; changes no answer.",
    )
    draft_tokens: int = Field(
        16, ge=1, le=256, description="Tokens computed ahead of one sequence at most."
    )
    draft_models: Names = Field(
        (),
        description="Smaller GGUF files that write ahead where that is faster, `FILE` for the "
        "first model or `MODEL=FILE`. A draft model has its model's vocabulary, and KV cells of "
        "its own for as many slots and tokens; it changes no answer.",
    )
    threads: int | None = Field(None, ge=1, description="Threads per model; all cores where unset.")
    gpu_layers: int = Field(0, ge=-1, description="Layers put on the GPU; -1 for all.")
    mmap: bool | None = Field(
        None,
        description="Map model files into memory, or read them; whatever suits where unset.",
    )
    mlock: bool = Field(False, description="Keep models from being swapped out.")
    hang_timeout_s: float = Field(
        180,
        gt=0,
        description="Seconds of silence after which a busy engine is restarted; "
        "longer than its longest forward pass.",
    )
    queue_limit: int = Field(256, ge=1, description="Requests that wait for a model at most.")
    queue_deadline_s: float = Field(60, gt=0, description="Seconds a request waits at most.")
    batch_queue_limit: int = Field(
        256, ge=1, description="Requests of `service_tier: flex` that wait besides, at most."
    )
    batch_queue_deadline_s: float = Field(
        3600, gt=0, description="Seconds a request of `service_tier: flex` waits at most."
    )

    moderation_model: str | None = Field(
        None,
        description="Name or alias of the served chat model that answers `/v1/moderations` for "
        "OpenAI's names of moderation models; the upstream does where unset.",
    )

    # upstream
    openai_api_key: SecretStr | None = Field(
        None,
        validation_alias=_also("openai_api_key", "OPENAI_API_KEY"),
        description="Key for the upstream; with it, what is not local is relayed.",
    )
    openai_base_url: str = Field(
        "https://api.openai.com/v1",
        validation_alias=_also("openai_base_url", "OPENAI_BASE_URL"),
        description="Base URL of the upstream; any server that speaks OpenAI's API.",
    )
    upstream_connect_timeout_s: float = Field(10, gt=0, description="Seconds to connect.")
    upstream_idle_timeout_s: float = Field(
        600, gt=0, description="Seconds between two pieces of an upstream's answer."
    )
    backends: tuple[BackendSettings, ...] = Field(
        (),
        description="Upstreams, any number; the settings of each are below. `openai_api_key` adds "
        "one more, named `openai`, that serves all models.",
    )
    routes: dict[str, Names] = Field(
        {},
        description="Further model names, each with who answers for it, in turn, where those "
        "before cannot: `NAME: MODEL, MODEL@BACKEND, ...`.",
    )
    operations: dict[str, str] = Field(
        {},
        description="Which backend answers what no model decides, by operationId or tag: "
        "`Images: NAME`.",
    )

    strict: bool = Field(
        False,
        description="Refuse fields that the document does not know in what is relayed; otherwise "
        "they are passed on, and named in the answer's `x-llm-backend-unknown-fields`.",
    )

    # what is remembered and checked
    store_chats: Literal["always", "on-request", "never"] = Field(
        "always",
        description="Which chats and responses are stored: all but `store: false`, or only "
        "`store: true`, or none.",
    )
    retain_days: float | None = Field(
        None,
        gt=0,
        description="Days after which chats, responses, conversations, batches and files are "
        "forgotten, unless something uses them; never where unset.",
    )
    history_limit_bytes: int | None = Field(
        None,
        ge=1024 * 1024,
        description="Bytes of chats, responses and conversations that are kept at most, about; the "
        "oldest are forgotten. Any number where unset.",
    )
    files_limit_bytes: int | None = Field(
        None,
        ge=1024 * 1024,
        description="Bytes of files and parts of uploads that are kept at most; what would be over "
        "is refused. Any number where unset.",
    )
    files: Literal["local", "upstream"] = Field(
        "local",
        description="Where new files and uploads are kept, and listed; ids that are not known here "
        "are asked of the upstream, if there is one.",
    )
    vector_stores: Literal["local", "upstream"] = Field(
        "local",
        description="Where new vector stores are kept, and listed; ids that are not known here are "
        "asked of the upstream, if there is one.",
    )
    qdrant_url: str | None = Field(
        None,
        description="URL of a Qdrant server for the vectors of vector stores, which several "
        "processes or servers need; an index in the data folder where unset.",
    )
    qdrant_api_key: SecretStr | None = Field(None, description="Key for the Qdrant server.")
    qdrant_prefix: str = Field(
        "llm-backend-", description="What the names of its collections begin with."
    )
    embedding_model: str | None = Field(
        None,
        description="Name of the model that makes the vectors of new vector stores, a local one or "
        "an upstream's; the first local one for embeddings where unset.",
    )
    file_search: Literal["on-call", "always"] = Field(
        "on-call",
        description="When the tool `file_search` of a response is run: when the model calls it, or "
        "also before the model is asked, which suits small models.",
    )
    passages_limit: int = Field(
        3, ge=1, le=50, description="Passages that a search gives a model where it is not said."
    )
    retrieval_policy: Literal["system-message", "last-user-message"] = Field(
        "system-message",
        description="Where a chat's model reads the passages that were found: in the system "
        "message, or before the user's last one.",
    )
    retrieval_least_similarity: float = Field(
        0.2,
        ge=0,
        le=1,
        description="Cosine that a passage has at least to be shown in a chat that does not say; "
        "one that was found by its words is shown without.",
    )
    object_store_url: str | None = Field(
        None,
        description="Where the bytes of files are: `s3://BUCKET/PREFIX`, with credentials and "
        "endpoint from AWS's own variables, or `file:///FOLDER`; a folder in the data folder where "
        "none is given. Servers on one database share it.",
    )
    job_lease_s: float = Field(
        30,
        gt=0,
        description="Seconds after which work that a dead server was at is taken up by another; at "
        "once where the database is a file.",
    )
    extraction_timeout_s: float = Field(
        60, gt=0, description="Seconds that reading the text of one file may take."
    )
    extraction_memory_bytes: int = Field(
        1024 * 1024 * 1024,
        ge=128 * 1024 * 1024,
        description="Memory that reading the text of one file may take.",
    )
    text_limit_bytes: int = Field(
        20 * 1024 * 1024, ge=1024, description="Text that one file may hold to be read."
    )
    response_validation: Literal["off", "log", "enforce"] = Field(
        "log", description="What happens to an answer of ours that breaks the document."
    )
    body_limit_bytes: int = Field(
        32 * 1024 * 1024, ge=1024, description="Size of a JSON request body at most."
    )
    upload_limit_bytes: int = Field(
        512 * 1024 * 1024,
        ge=1024,
        description="Size of any other request body, and of a file in one, at most.",
    )
    part_limit_bytes: int = Field(
        64 * 1024 * 1024, ge=1024, description="Size of one part of an upload at most."
    )
    parts_limit: int = Field(1000, ge=1, le=10_000, description="Parts of an upload at most.")
    parted_upload_limit_bytes: int = Field(
        8 * 1024 * 1024 * 1024,
        ge=1024,
        description="Size of a file that comes in parts, and of all its parts, at most.",
    )
    batch_lines_limit: int = Field(50_000, ge=1, description="Lines of a batch at most.")
    batch_line_limit_bytes: int = Field(
        8 * 1024 * 1024, ge=1024, description="Size of a line of a batch at most."
    )
    batch_concurrency: int = Field(
        16, ge=1, description="Lines of batches that a process has answered at the same time."
    )
    json_depth_limit: int = Field(100, ge=8, le=500, description="Nesting of a JSON body at most.")
    choices_limit: int = Field(16, ge=1, le=128, description="`n` and `best_of` at most.")
    prompts_limit: int = Field(
        64, ge=1, description="Prompts of one completion, or inputs of one moderation, at most."
    )
    inputs_limit: int = Field(
        2048, ge=1, description="Inputs to embed, or documents to rank, of one request at most."
    )
    socket_streams_limit: int = Field(
        16, ge=1, description="Responses that one WebSocket has at work at once at most."
    )
    socket_waiting_limit: int = Field(
        64, ge=1, description="Requests of one WebSocket that wait for others of it at most."
    )
    socket_idle_timeout_s: float = Field(
        900, gt=0, description="Seconds after which a WebSocket for responses that is silent ends."
    )
    background_limit: int = Field(
        8, ge=1, description="Responses in the background that one process answers at once."
    )
    background_waiting_limit: int = Field(
        1000, ge=1, description="Responses in the background that have not ended at most."
    )
    tool_calls_limit: int = Field(
        32,
        ge=0,
        description="Calls of tools that the server runs, in one response at most; a request's "
        "`max_tool_calls` may lower it.",
    )

    mcp_servers: Names = Field(
        (),
        description="URLs of the MCP servers that responses with `mcp` tools may use; others are "
        "refused.",
    )
    mcp_timeout_s: float = Field(
        60, gt=0, description="Seconds that an MCP server gets for an answer."
    )

    # what is told
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", validation_alias=_also("log_level", "LOG_LEVEL"), description="Least level logged."
    )
    log_format: Literal["text", "json"] = Field("text", description="Form of log lines.")
    otlp_endpoint: str | None = Field(
        None,
        pattern="^https?://.+",
        validation_alias=_also("otlp_endpoint", "OTEL_EXPORTER_OTLP_ENDPOINT"),
        description="Base URL of a collector that takes traces (OTLP over HTTP); none are made"
        " where none is given.",
    )
    log_prompts: bool = Field(False, description="Log JSON request bodies; never keys.")
    processes: int = Field(
        1,
        ge=1,
        le=64,
        description="API processes; they share the engines, which are one per model.",
    )
    shutdown_grace_s: int = Field(20, ge=0, description="Seconds running streams get to finish.")

    @field_validator(
        "models",
        "aliases",
        "tool_formats",
        "draft_models",
        "allowed_hosts",
        "cors_origins",
        "api_keys",
        "mcp_servers",
        mode="before",
    )
    @classmethod
    def _split(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        return tuple(word.strip() for word in value.split(",") if word.strip())

    @field_validator("routes", mode="before")
    @classmethod
    def _split_each(cls, value: object) -> object:
        if not isinstance(value, dict):
            return value
        return {name: cls._split(steps) for name, steps in value.items()}

    @field_validator("backends", mode="before")
    @classmethod
    def _with_keys(cls, value: object) -> object:
        if not isinstance(value, list | tuple):
            return value
        return [_with_key(one) if isinstance(one, dict) else one for one in value]

    @field_validator("log_level", mode="before")
    @classmethod
    def _lower(cls, value: object) -> object:
        return value.lower() if isinstance(value, str) else value

    @field_validator("mcp_servers")
    @classmethod
    def _web(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for url in value:
            if not url.startswith(("http://", "https://")):
                raise ValueError(f"{url} is no http or https URL")
        return value

    @field_validator("data_dir", "models_dir", "tls_certificate", "tls_key", "tls_chain")
    @classmethod
    def _expand(cls, value: Path | None) -> Path | None:
        return value and value.expanduser().absolute()

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach the server."""
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    @property
    def has_database_server(self) -> bool:
        """Whether the database is a server, which may be down for a while, and not a file."""
        return self.database.startswith("postgres")

    @property
    def has_upstream(self) -> bool:
        """Whether there is another server that what is not local can be asked of."""
        return bool(self.backends) or self.openai_api_key is not None

    @property
    def hosts(self) -> tuple[str, ...]:
        """The names that requests may call this server by; empty for any."""
        if self.allowed_hosts or self.api_keys or not self.is_loopback:
            return self.allowed_hosts
        return "localhost", "127.0.0.1", "[::1]", self.host

    @property
    def database(self) -> str:
        """The database's URL: the one given, else SQLite in the data folder."""
        if self.database_url is not None:
            return self.database_url.get_secret_value()
        return f"sqlite:///{self.data_dir / 'llm-backend.sqlite3'}"

    @property
    def models_folder(self) -> Path:
        """Where pulled models are."""
        return self.models_dir or self.data_dir / "models"

    @property
    def object_store(self) -> str:
        """The object store's URL: the one given, else a folder in the data folder."""
        return self.object_store_url or (self.data_dir / "files").as_uri()


def load_settings(
    flags: Mapping[str, Any] | None = None, config_file: Path | None = None
) -> Settings:
    """The settings of this process; `flags` are by field name, None where not given.

    Raises `SettingsError`, one sentence, for a value that cannot be used, a name that is not a
    setting, or a file that cannot be read.
    """
    given = {name: value for name, value in (flags or {}).items() if value is not None}
    from_file = _read_file(config_file) if config_file else {}
    _refuse_unknown_environment()

    class WithFile(Settings):
        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,
            env_settings: PydanticBaseSettingsSource,
            dotenv_settings: PydanticBaseSettingsSource,
            file_secret_settings: PydanticBaseSettingsSource,
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            return init_settings, env_settings, InitSettingsSource(settings_cls, from_file)

    try:
        return WithFile(**given)
    except ValidationError as error:
        raise SettingsError(_sentence(error)) from error
    except UnreadableVariable as error:
        name = str(error).split('"')[1]
        raise SettingsError(f"The variable of the setting `{name}` holds no JSON.") from error


@dataclass(frozen=True, kw_only=True)
class SettingsSource:
    """Where the settings of this process come from besides the environment."""

    flags: Mapping[str, Any]
    file: Path | None

    def load(self) -> Settings:
        """The settings as they are now; raises `SettingsError`."""
        return load_settings(self.flags, self.file)


def settings_as_json(settings: Settings) -> str:
    """All of them, keys included, for another process of this server."""
    return json.dumps(settings.model_dump(), default=_plain)


def settings_from_json(text: str) -> Settings:
    """What `settings_as_json` gave; neither environment nor file is read again."""

    class Given(Settings):
        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,
            env_settings: PydanticBaseSettingsSource,
            dotenv_settings: PydanticBaseSettingsSource,
            file_secret_settings: PydanticBaseSettingsSource,
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            return (init_settings,)

    return Given(**json.loads(text))


def environment_with(more: Mapping[str, str]) -> dict[str, str]:
    """This process's environment and `more`, for a process that it starts."""
    return {**os.environ, **more}


def configuration_markdown() -> str:
    """The text of `docs/configuration.md`: every setting, its names, default and meaning."""
    lines = [
        "# Configuration",
        "",
        "Generated from `llm_backend/settings.py` by `llm-backend configuration`.",
        "",
        "A setting's flag is its name with dashes (`--log-level`, `--no-web`; `--model` and other",
        "lists are said once for each); secrets have none, nor have settings of many parts.",
        "A flag of `llm-backend serve` wins over the environment, the environment over the file of",
        "`--config`, the file over the default. Lists are comma-separated in the environment and",
        "lists in the file.",
        "",
        "| setting | environment | default | meaning |",
        "|---|---|---|---|",
    ]
    for name, field in Settings.model_fields.items():
        alias = field.validation_alias
        names = alias.choices if isinstance(alias, AliasChoices) else [PREFIX + name.upper()]
        shown = ", ".join(f"`{one}`" for one in names)
        lines.append(f"| `{name}` | {shown} | {_shown(field.default)} | {field.description} |")
    return (
        "\n".join([*lines, *_models_markdown(), *_backends_markdown(), *_prompts_markdown()]) + "\n"
    )


def _models_markdown() -> list[str]:
    """What an entry under `models` may say."""
    lines = [
        "",
        "## One model",
        "",
        "An entry under `models` in the file is a path, or a mapping of these; what it leaves out",
        "is what the settings above say.",
        "",
        "| key | default | meaning |",
        "|---|---|---|",
    ]
    for name, field in ModelSettings.model_fields.items():
        has_value = not field.is_required() and field.default_factory is None
        default = _shown(field.default) if has_value else ""
        lines.append(f"| `{name}` | {default} | {field.description} |")
    names = ", ".join(f"`{name}`" for name in RequestDefaults.model_fields)
    return [*lines, "", f"`defaults` knows {names}."]


def _backends_markdown() -> list[str]:
    """What an entry under `backends` may say."""
    lines = [
        "",
        "## One backend",
        "",
        "An entry under `backends` in the file, or in the JSON list of its variable, is a mapping",
        "of these; [routing.md](routing.md) has examples.",
        "",
        "| key | default | meaning |",
        "|---|---|---|",
    ]
    for name, field in BackendSettings.model_fields.items():
        default = "" if field.is_required() else _shown(field.default)
        lines.append(f"| `{name}` | {default} | {field.description} |")
    return lines


def _prompts_markdown() -> list[str]:
    """What an entry under `prompts` may say."""
    lines = ["", "## One prompt", "", "| key | default | meaning |", "|---|---|---|"]
    for name, field in PromptSettings.model_fields.items():
        default = "" if field.is_required() else _shown(field.default)
        lines.append(f"| `{name}` | {default} | {field.description} |")
    return lines


def _with_key(backend: dict[str, Any]) -> dict[str, Any]:
    """The entry with its key in place of where the key is."""
    given = {**backend}
    variable, file = given.pop("api_key_env", None), given.pop("api_key_file", None)
    if sum(one is not None for one in (variable, file, given.get("api_key"))) > 1:
        raise ValueError("a backend's key is given once: api_key, api_key_env or api_key_file")
    if variable is not None:
        if not os.environ.get(str(variable)):
            raise ValueError(f"the variable {variable}, which holds a backend's key, is not set")
        given["api_key"] = os.environ[str(variable)]
    if file is not None:
        try:
            given["api_key"] = Path(str(file)).expanduser().read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"the file {file}, which holds a backend's key, is unread") from error
    return given


def _plain(value: object) -> str:
    return value.get_secret_value() if isinstance(value, SecretStr) else str(value)


def _shown(default: object) -> str:
    if default is None or default == () or isinstance(default, Mapping):
        return ""
    if isinstance(default, tuple):
        return f"`{', '.join(default)}`"
    return f"`{str(default).lower() if isinstance(default, bool) else default}`"


def _read_file(path: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except OSError as error:
        raise SettingsError(f"Cannot read the config file {path}: {error.strerror}.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise SettingsError(f"The config file {path} is not YAML: {reason}.") from error
    if not isinstance(values, dict):
        raise SettingsError(f"The config file {path} must hold `setting: value` lines.")
    for name in values:
        if name not in Settings.model_fields:
            raise SettingsError(f"The config file {path} holds `{name}`, which is not a setting.")
    return values


def _refuse_unknown_environment() -> None:
    known = {PREFIX + name.upper() for name in Settings.model_fields}
    for name in os.environ:
        if name.upper().startswith(PREFIX) and name.upper() not in known:
            raise SettingsError(f"The environment holds {name}, which is not a setting: unset it.")


def _sentence(error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    name = _place(first["loc"]) if first["loc"] else "settings"
    if first["type"] == "extra_forbidden":
        return f"The setting `{name}` is not known."
    secret = first["type"] == "value_error" or any(
        word in name for word in ("key", "url", "headers")
    )
    value = "" if secret else f" (given: {first['input']!r})"
    return f"The setting `{name}` cannot be used: {first['msg']}{value}."


def _place(location: tuple[int | str, ...]) -> str:
    """`models[0].slots`, without the names of kinds that a value may be of."""
    name = str(location[0]).removeprefix(PREFIX).lower()
    for step in location[1:]:
        if isinstance(step, int):
            name += f"[{step}]"
        elif step not in ("", "entry", "str", "TurnsOfChat", "AdapterSettings"):
            name += f".{step}"
    return name
