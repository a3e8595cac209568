"""Messages between the model manager server and its clients: lines of JSON."""

from pathlib import Path

import msgspec

from llm_backend.engine import EngineDown, EngineStartError
from llm_backend.errors import (
    ApiError,
    EngineUnavailable,
    InvalidRequest,
    ModelNotFound,
    ServiceUnavailable,
)
from llm_backend.ipc import Channel

SOCKET = Path("model_manager.sock")  # in the folder that is shared
_LINE_BYTES = 16 << 20  # settings are the longest line, and they are written by hand


class _ManagerMessage(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    pass


class _ModelRequest(_ManagerMessage, frozen=True, kw_only=True):
    number: int
    model: str


class UseEngine(_ModelRequest, frozen=True, kw_only=True):
    """Request: load the model, and keep it loaded until `RequestEnded`."""


class LoadModelRequest(_ModelRequest, frozen=True, kw_only=True):
    """Request: load the model, by an explicit command."""


class UnloadModel(_ModelRequest, frozen=True, kw_only=True):
    """Request: unload the model."""


class ChoosePersonality(_ModelRequest, frozen=True, kw_only=True):
    """Request: set the personality of requests that name none, in all processes."""

    personality: str


class RequestEnded(_ManagerMessage, frozen=True, kw_only=True):
    """The request `number` has ended, answered or cancelled."""

    number: int


class _EngineMessage(_ManagerMessage, frozen=True, kw_only=True):
    socket_path: str


class EngineBusy(_EngineMessage, frozen=True, kw_only=True):
    """This client has requests on the engine with this socket path."""


class EngineIdle(_EngineMessage, frozen=True, kw_only=True):
    """This client has no requests on the engine any more."""


class EngineReleased(_EngineMessage, frozen=True, kw_only=True):
    """This client has closed its connection to the engine with this socket path."""


class Synchronized(_ManagerMessage, frozen=True, kw_only=True):
    """This client has applied all messages before `Synchronize`."""

    number: int


class OpenEngine(msgspec.Struct, frozen=True, kw_only=True):
    """Engine in memory and its socket path. While `is_unloading` it accepts no new requests;
    `is_ready` is as of the time of sending."""

    model: str
    socket_path: str
    is_ready: bool
    is_unloading: bool


class EngineStates(_ManagerMessage, frozen=True, kw_only=True):
    """All engines in memory, and the models that wait for memory."""

    engines: list[OpenEngine]
    loading: list[str]


class PersonalitiesChosen(_ManagerMessage, frozen=True, kw_only=True):
    """Personalities of requests that name none, by model."""

    personalities: dict[str, str]


class SettingsChanged(_ManagerMessage, frozen=True, kw_only=True):
    """New settings of local models."""

    settings: str


class Synchronize(_ManagerMessage, frozen=True, kw_only=True):
    """Asks the client for `Synchronized` when it has applied all messages so far."""

    number: int


class RequestDone(_ManagerMessage, frozen=True, kw_only=True):
    """The request is done; `socket_path` is that of a requested engine."""

    number: int
    model: str
    socket_path: str | None = None


class RequestFailed(_ManagerMessage, frozen=True, kw_only=True):
    """The request has failed, with the fields of its error."""

    number: int
    model: str
    kind: str
    message: str
    param: str | None = None
    code: str | None = None
    retry_after_s: float | None = None

    @classmethod
    def encode_error(cls, request: "ManagerRequest", error: Exception) -> "RequestFailed":
        """Encodes an error for the client process."""
        api_error = error if isinstance(error, ApiError) else None
        retry_after_s = error.retry_after_s if isinstance(error, ApiError | EngineDown) else None
        return cls(
            number=request.number,
            model=request.model,
            kind=type(error).__name__,
            message=str(error),
            param=api_error.param if api_error else None,
            code=api_error.code if api_error else None,
            retry_after_s=retry_after_s,
        )

    def decode_error(self) -> Exception:
        """Decodes the owner's error."""
        if self.kind == ModelNotFound.__name__:
            return ModelNotFound(self.model)
        if kind := _ERRORS.get(self.kind):
            return kind(
                self.message,
                param=self.param,
                code=self.code,
                retry_after_s=self.retry_after_s,
            )
        if self.kind == EngineDown.__name__:
            return EngineDown(self.message, self.retry_after_s)
        return EngineStartError(self.message, self.retry_after_s)


_ERRORS = {one.__name__: one for one in (EngineUnavailable, InvalidRequest, ServiceUnavailable)}

ManagerRequest = UseEngine | LoadModelRequest | UnloadModel | ChoosePersonality
ClientMessage = (
    ManagerRequest | RequestEnded | EngineBusy | EngineIdle | EngineReleased | Synchronized
)
ServerMessage = (
    EngineStates | PersonalitiesChosen | SettingsChanged | Synchronize | RequestDone | RequestFailed
)

SERVER_CHANNEL = Channel(
    decode=msgspec.json.Decoder(ClientMessage).decode, peer="api_process", limit_bytes=_LINE_BYTES
)
CLIENT_CHANNEL = Channel(
    decode=msgspec.json.Decoder(ServerMessage).decode, peer="model_manager", limit_bytes=_LINE_BYTES
)
