"""Settings of the listening sockets, TLS, API processes, and of the page and other APIs beside
OpenAI's."""

import re
from ipaddress import ip_address
from pathlib import Path

from pydantic import BaseModel, Field, SecretStr, field_validator

from llm_backend.settings.kinds import AbsolutePath, Names, PublicUrl

_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^/*\s]*|null|\*", re.IGNORECASE)
_HOST = re.compile(r"[^/*\s]+")


class ListeningSettings(BaseModel):
    """Addresses, TLS, accepted hosts and origins, timeouts of connections, API processes."""

    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(8000, ge=0, le=65535, description="Port to listen on; 0 chooses a free one.")
    tls_certificate: AbsolutePath | None = Field(
        None, description="PEM file of the server's certificate; plain HTTP if unset."
    )
    tls_key: AbsolutePath | None = Field(
        None,
        description="PEM file of the certificate's key; if unset, the key is in the certificate's "
        "file.",
    )
    tls_chain: AbsolutePath | None = Field(
        None, description="PEM file of the intermediate certificates."
    )
    tls_password: SecretStr | None = Field(None, description="Password of the encrypted key.")
    allow_open: bool = Field(False, description="Listen beyond loopback without any key.")
    allowed_hosts: Names = Field(
        (),
        description="Host names that requests may be addressed to. If unset, an open server on "
        "loopback accepts loopback's names only, and any other server accepts all names. Probes "
        "(`/healthz`, `/readyz`, `/metrics`) of a server beyond loopback may have any name.",
    )
    public_url: PublicUrl | None = Field(
        None,
        description="Address at which clients reach this server, `https://models.example.com` for "
        "instance, for URLs in answers. If unset, URLs have the address of the request, and in "
        "results of batches only a path.",
    )
    cors_origins: Names = Field(
        (),
        description="Origins of other sites whose pages may use this server, for example "
        "`https://chat.example.com`, or `*` for all of them. Requests that browsers send for "
        "pages of other origins are refused, with or without keys.",
    )
    header_timeout_s: float = Field(
        30,
        gt=0,
        description="Timeout in seconds for a request's headers, from the connection or from their "
        "first byte, and for a TLS handshake. Then the connection is closed, after a 408 if a part "
        "of the headers was received.",
    )
    body_min_bytes_per_s: float = Field(
        1024,
        gt=0,
        description="Minimum average rate of a request's body, in bytes per second, while the "
        "server reads it; a slower request is answered with 408.",
    )
    body_grace_s: float = Field(
        30,
        gt=0,
        description="Seconds by which a request's body may lag behind `body_min_bytes_per_s`, for "
        "instance by a pause.",
    )
    keep_alive_timeout_s: int = Field(
        75,
        ge=1,
        description="Seconds after which an idle connection is closed; set it longer than the "
        "idle timeout of a proxy in front, so that the proxy never uses a connection that is "
        "being closed.",
    )
    write_timeout_s: float = Field(
        60,
        gt=0,
        description="Seconds in which a client must read some of the bytes that wait for it; "
        "otherwise its connection is closed.",
    )
    web: bool = Field(True, description="Serve the chat page at `/` and Swagger UI at `/docs`.")
    web_ui: AbsolutePath | None = Field(
        None,
        description="Folder whose files are served at `/` instead of the chat page, with its "
        "`index.html`: another web page for this server. Its scripts can use the API as those of "
        "the chat page can.",
    )
    messages_api: bool = Field(
        True, description="Answer `POST /v1/messages` and its token count, Anthropic's operations."
    )
    ollama_api: bool = Field(True, description="Answer Ollama's operations under `/api`.")
    mcp_api: bool = Field(
        False,
        description="Answer `POST /mcp`: an MCP server with this server's vector stores, files and "
        "models, and the tools of `mcp_servers`.",
    )
    mcp_file_limit_bytes: int = Field(
        1024 * 1024,
        ge=1024,
        description="Limit of the bytes of a file that is read in one piece over MCP.",
    )
    mcp_nodes_limit: int = Field(
        20_000,
        ge=1000,
        description="Maximum number of values and field names in a message over MCP, whose parsing "
        "holds up other requests.",
    )
    obfuscate_streams: bool = Field(
        True,
        description="Pad each chunk of a stream with random characters, so that sizes on the wire "
        "do not reveal its length; a request's `include_obfuscation` overrides it.",
    )
    processes: int = Field(
        1,
        ge=1,
        le=64,
        description="Number of API processes; they share the engines, one per model.",
    )
    process_hang_timeout_s: float = Field(
        60,
        gt=0,
        description="Seconds without a heartbeat after which one of several API processes is "
        "killed and replaced. Until then its requests wait, and no model is unloaded.",
    )
    socket_fragments_limit: int = Field(
        4096,
        ge=1,
        description="Maximum number of fragments of one message of a WebSocket.",
    )
    socket_control_frames_per_s: int = Field(
        100,
        ge=1,
        description="Maximum number of pings and pongs of one WebSocket in a second.",
    )
    shutdown_delay_s: int = Field(
        0,
        ge=0,
        description="Seconds after SIGTERM in which new requests are still answered while "
        "`/readyz` answers 503, so that load balancers remove the server before it stops.",
    )
    shutdown_grace_s: int = Field(
        20,
        ge=0,
        description="Seconds that running streams may take to finish at shutdown; a second signal "
        "(Ctrl-C again) ends them immediately.",
    )

    @property
    def is_loopback(self) -> bool:
        """True if only this machine can reach the server."""
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    @field_validator("allowed_hosts")
    @classmethod
    def _check_hosts(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for host in value:
            if not _HOST.fullmatch(host):
                raise ValueError(f"`{host}` is not a host name like llm.example.com")
        return value

    @field_validator("cors_origins")
    @classmethod
    def _check_origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for origin in value:
            if not _ORIGIN.fullmatch(origin):
                raise ValueError(f"`{origin}` is not an origin like https://chat.example.com")
        return tuple(origin.lower() for origin in value)  # as browsers write them

    @field_validator("web_ui")
    @classmethod
    def _check_index(cls, value: Path | None) -> Path | None:
        if value is not None and not (value / "index.html").is_file():
            raise ValueError(f"{value} has no index.html")
        return value
