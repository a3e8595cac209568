"""Messages between an API process and its parent: lines of JSON."""

import msgspec

from llm_backend.ipc import Channel

_LIMIT_BYTES = 1 << 24  # of one message: all settings, in which chat templates may stand


class _ProcessMessage(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    pass


class Start(_ProcessMessage, frozen=True, kw_only=True):
    """The first message to a process: its settings as JSON, the folder that is shared, and the
    config file of the settings, which hints name."""

    settings: str
    shared: str
    config_file: str | None = None


class Ping(_ProcessMessage, frozen=True, kw_only=True):
    """A heartbeat, which a process answers by `Pong`."""


class Drain(_ProcessMessage, frozen=True, kw_only=True):
    """Asks to stop after the delay in which load balancers notice that it is not ready."""


class Stop(_ProcessMessage, frozen=True, kw_only=True):
    """Asks to end after the running answers or their grace period."""


class Serving(_ProcessMessage, frozen=True, kw_only=True):
    """The process serves; `requires_key` if its requests need a key."""

    requires_key: bool


class StartFailed(_ProcessMessage, frozen=True, kw_only=True):
    """The process cannot serve."""

    reason: str


class Pong(_ProcessMessage, frozen=True, kw_only=True):
    """The answer to a `Ping`."""


ParentMessage = Start | Ping | Drain | Stop
ProcessReply = Serving | StartFailed | Pong

PARENT_CHANNEL = Channel(
    decode=msgspec.json.Decoder(ProcessReply).decode, peer="api_process", limit_bytes=_LIMIT_BYTES
)
PROCESS_CHANNEL = Channel(
    decode=msgspec.json.Decoder(ParentMessage).decode, peer="parent", limit_bytes=_LIMIT_BYTES
)
