"""Where the server listens, for whom, and in how many processes."""

from ipaddress import ip_address

from pydantic import BaseModel, Field, SecretStr

from llm_backend.settings.kinds import MaybePath, Names

__all__ = ["ListeningSettings"]


class ListeningSettings(BaseModel):
    """Where the server listens, for whom, and in how many processes."""

    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(8000, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    tls_certificate: MaybePath = Field(
        None, description="PEM file of the certificate to serve with; without one it is plain HTTP."
    )
    tls_key: MaybePath = Field(
        None, description="PEM file of the certificate's key; the certificate's own where unset."
    )
    tls_chain: MaybePath = Field(
        None, description="PEM file of the certificates between it and a known authority."
    )
    tls_password: SecretStr | None = Field(
        None, description="What the key is encrypted with, if it is."
    )
    allow_open: bool = Field(False, description="Listen beyond loopback although there is no key.")
    allowed_hosts: Names = Field(
        (),
        description="Names that requests may call this server by; without a key on loopback only "
        "loopback's, otherwise any, where unset.",
    )
    cors_origins: Names = Field(
        (),
        description="Origins of other sites whose pages may use this server, "
        "`https://chat.example.com` say, or `*` for all of them. What browsers send for pages of "
        "others is refused, with or without keys.",
    )
    header_timeout_s: float = Field(
        30,
        gt=0,
        description="Seconds for a request's headers, from the connection or their first byte on, "
        "and for a TLS handshake; then it is given up, with a 408 where something was sent.",
    )
    body_min_bytes_per_s: float = Field(
        1024,
        gt=0,
        description="Bytes a second that a request's body comes at on average at least, while the "
        "server reads it; a slower one is given up with a 408.",
    )
    body_grace_s: float = Field(
        30, gt=0, description="Seconds by which a body may fall behind that, or pause."
    )
    keep_alive_timeout_s: int = Field(
        75,
        ge=1,
        description="Seconds after which a connection without a request is closed; longer than "
        "proxies keep theirs, so that none sends into one that is being closed.",
    )
    write_timeout_s: float = Field(
        60,
        gt=0,
        description="Seconds in which a client takes something of what waits for it at least; a "
        "connection where it takes nothing is cut.",
    )
    web: bool = Field(True, description="Serve the chat page at `/` and Swagger UI at `/docs`.")
    obfuscate_streams: bool = Field(
        True,
        description="Send random characters beside each piece of a stream, so that sizes on the "
        "wire do not tell how long it is; `include_obfuscation` of a request decides for it.",
    )
    processes: int = Field(
        1,
        ge=1,
        le=64,
        description="API processes; they share the engines, which are one per model.",
    )
    process_hang_timeout_s: float = Field(
        60,
        gt=0,
        description="Seconds of silence after which one of several API processes is killed and "
        "replaced; until then its requests, and models that are to be unloaded, wait for it.",
    )
    shutdown_delay_s: int = Field(
        0,
        ge=0,
        description="Seconds after SIGTERM in which new requests are still answered while "
        "`/readyz` is a 503, so that a load balancer takes the server out before it is gone.",
    )
    shutdown_grace_s: int = Field(20, ge=0, description="Seconds running streams get to finish.")

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach the server."""
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"
