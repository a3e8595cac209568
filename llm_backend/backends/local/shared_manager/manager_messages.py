"""Messages between the model manager server and its clients: lines of JSON."""

from pathlib import Path

import msgspec

from llm_backend.engine import EngineDown, EngineStartError
from llm_backend.errors import (
    ApiError,
    EngineUnavailable,
    InvalidRequest,
    ModelNotFound,
    Overloaded,
)

__all__ = [
    "LINE_BYTES",
    "ROOM",
    "UNREAD_BYTES",
    "Asked",
    "ChooseModels",
    "EngineBusy",
    "EngineIdle",
    "EngineReleased",
    "EngineStates",
    "FromLodger",
    "FromOwner",
    "LoadDone",
    "LoadGranted",
    "LoadModel",
    "LoadRefused",
    "ModelsChanged",
    "ModelsChosen",
    "OpenEngine",
    "ReleaseAgreed",
    "SettleEngine",
    "UnloadModel",
    "UseEngine",
    "from_client",
    "from_owner",
    "line",
]

ROOM = Path("room.sock")  # in the folder that is shared
LINE_BYTES = 16 << 20  # settings are the longest line, and they are written by hand
UNREAD_BYTES = LINE_BYTES  # only a stuck process leaves more than the longest line unread


class _ManagerMessage(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    pass


class UseEngine(_ManagerMessage, frozen=True, kw_only=True):
    """Request: load the model, and keep it loaded until `LoadDone`."""

    ask: int
    model: str


class LoadModel(_ManagerMessage, frozen=True, kw_only=True):
    """Request: load the model, by an explicit command."""

    ask: int
    model: str


class UnloadModel(_ManagerMessage, frozen=True, kw_only=True):
    """Request: unload the model."""

    ask: int
    model: str


class ChooseModels(_ManagerMessage, frozen=True, kw_only=True):
    """Request: set the personality of requests that name none, in all processes."""

    ask: int
    model: str
    personality: str


class LoadDone(_ManagerMessage, frozen=True, kw_only=True):
    """The request `ask` has ended, answered or cancelled."""

    ask: int


class EngineBusy(_ManagerMessage, frozen=True, kw_only=True):
    """This client has requests on the engine with this socket path."""

    door: str


class EngineIdle(_ManagerMessage, frozen=True, kw_only=True):
    """This client has no requests on the engine any more."""

    door: str


class EngineReleased(_ManagerMessage, frozen=True, kw_only=True):
    """This client has closed its connection to the engine with this socket path."""

    door: str


class ReleaseAgreed(_ManagerMessage, frozen=True, kw_only=True):
    """This client has applied all messages before `SettleEngine`."""

    number: int


class OpenEngine(msgspec.Struct, frozen=True, kw_only=True):
    """Engine in memory and its socket path. One that is leaving accepts no new requests;
    `is_ready` is a snapshot of the time of sending."""

    model: str
    door: str
    is_ready: bool
    is_leaving: bool


class EngineStates(_ManagerMessage, frozen=True, kw_only=True):
    """All engines in memory, and the models that are being loaded."""

    engines: list[OpenEngine]
    loading: list[str]


class ModelsChosen(_ManagerMessage, frozen=True, kw_only=True):
    """Personalities of requests that name none, by model."""

    personalities: dict[str, str]


class ModelsChanged(_ManagerMessage, frozen=True, kw_only=True):
    """New settings of local models."""

    settings: str


class SettleEngine(_ManagerMessage, frozen=True, kw_only=True):
    """Asks the client for `ReleaseAgreed` when it has applied all messages so far."""

    number: int


class LoadGranted(_ManagerMessage, frozen=True, kw_only=True):
    """The request is done; `door` is the socket path of a requested engine."""

    ask: int
    door: str | None = None


class LoadRefused(_ManagerMessage, frozen=True, kw_only=True):
    """The request has failed, with the fields of its error."""

    ask: int
    kind: str
    message: str
    param: str | None = None
    code: str | None = None
    retry_after_s: float | None = None

    @classmethod
    def because(cls, ask: int, error: Exception) -> "LoadRefused":
        """Encodes an error for the client process."""
        named = error if isinstance(error, ApiError) else None
        retry_after_s = error.retry_after_s if isinstance(error, ApiError | EngineDown) else None
        return cls(
            ask=ask,
            kind=type(error).__name__,
            message=str(error),
            param=named.param if named else None,
            code=named.code if named else None,
            retry_after_s=retry_after_s,
        )

    def error(self, model: str) -> Exception:
        """Decodes the owner's error."""
        if self.kind == ModelNotFound.__name__:
            return ModelNotFound(model)
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


_ERRORS = {one.__name__: one for one in (EngineUnavailable, InvalidRequest, Overloaded)}

Asked = UseEngine | LoadModel | UnloadModel | ChooseModels
FromLodger = Asked | LoadDone | EngineBusy | EngineIdle | EngineReleased | ReleaseAgreed
FromOwner = EngineStates | ModelsChosen | ModelsChanged | SettleEngine | LoadGranted | LoadRefused

from_client = msgspec.json.Decoder(FromLodger).decode
from_owner = msgspec.json.Decoder(FromOwner).decode


def line(message: FromLodger | FromOwner) -> bytes:
    """Encodes a message as one line of JSON."""
    return msgspec.json.encode(message) + b"\n"
