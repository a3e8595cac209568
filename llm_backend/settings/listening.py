"""Where the server listens, for whom, and in how many processes."""

from ipaddress import ip_address

from pydantic import BaseModel, Field, SecretStr

from llm_backend.settings.kinds import MaybePath, Names

__all__ = ["Listening"]


class Listening(BaseModel):
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
