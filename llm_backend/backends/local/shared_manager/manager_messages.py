"""What the owner of a room of engines and its lodgers say to each other: lines of JSON."""

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
LINE_BYTES = 16 << 20  # settings are the longest line, and a person wrote them
UNREAD_BYTES = LINE_BYTES  # more than the longest line waits only for a process that is stuck


class _ManagerMessage(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    pass


class UseEngine(_ManagerMessage, frozen=True, kw_only=True):
    """Have the model in memory, and keep it there until `Done`."""

    ask: int
    model: str


class LoadModel(_ManagerMessage, frozen=True, kw_only=True):
    """Have the model in memory, as a person wants it."""

    ask: int
    model: str


class UnloadModel(_ManagerMessage, frozen=True, kw_only=True):
    """Have its memory free."""

    ask: int
    model: str


class ChooseModels(_ManagerMessage, frozen=True, kw_only=True):
    """From now on requests for the model that name no personality get this one, in all."""

    ask: int
    model: str
    personality: str


class LoadDone(_ManagerMessage, frozen=True, kw_only=True):
    """Whoever asked this does not wait any more."""

    ask: int


class EngineBusy(_ManagerMessage, frozen=True, kw_only=True):
    """The engine behind this door has work from here."""

    door: str


class EngineIdle(_ManagerMessage, frozen=True, kw_only=True):
    """It has none any more."""

    door: str


class EngineReleased(_ManagerMessage, frozen=True, kw_only=True):
    """Nobody here uses the engine behind this door, or will."""

    door: str


class ReleaseAgreed(_ManagerMessage, frozen=True, kw_only=True):
    """All that was told before `Settle` holds here."""

    number: int


class OpenEngine(msgspec.Struct, frozen=True, kw_only=True):
    """An engine that is in memory, and where to come in. One that is leaving takes nothing new;
    whether it is ready is as it was when this was told."""

    model: str
    door: str
    is_ready: bool
    is_leaving: bool


class EngineStates(_ManagerMessage, frozen=True, kw_only=True):
    """All engines that are in memory, and the models that are on their way there."""

    engines: list[OpenEngine]
    loading: list[str]


class ModelsChosen(_ManagerMessage, frozen=True, kw_only=True):
    """The personalities that were chosen for all requests, by model."""

    personalities: dict[str, str]


class ModelsChanged(_ManagerMessage, frozen=True, kw_only=True):
    """These are the settings of local models from now on."""

    settings: str


class SettleEngine(_ManagerMessage, frozen=True, kw_only=True):
    """Say when all that was told so far holds."""

    number: int


class LoadGranted(_ManagerMessage, frozen=True, kw_only=True):
    """It is so; where an engine was asked for, this is its door."""

    ask: int
    door: str | None = None


class LoadRefused(_ManagerMessage, frozen=True, kw_only=True):
    """It cannot be, and why."""

    ask: int
    kind: str
    message: str
    param: str | None = None
    code: str | None = None
    retry_after_s: float | None = None

    @classmethod
    def because(cls, ask: int, error: Exception) -> "LoadRefused":
        """How another process learns of an error."""
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
        """The error that it was."""
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
    """A message as it is sent."""
    return msgspec.json.encode(message) + b"\n"
