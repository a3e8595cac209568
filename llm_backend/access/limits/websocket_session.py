"""Metered WebSocket session: limits are checked when it opens, usage is counted while it is open,
and it ends when its key is no longer valid."""

import asyncio
from collections.abc import Callable
from typing import NoReturn

from llm_backend import exact_json
from llm_backend.access.authentication.named_models import find_named_models
from llm_backend.access.authentication.policy import Project
from llm_backend.access.authentication.principal import Caller
from llm_backend.access.limits.permission import PermissionChecks, project_of
from llm_backend.access.limits.reservation import RequestReservation
from llm_backend.access.usage.meter import RequestMeter
from llm_backend.access.usage.usage_parser import parse_usage
from llm_backend.contract.body import BodyLimits, check_bounds
from llm_backend.errors import InvalidRequest
from llm_backend.json_types import JsonObject
from llm_backend.offload import REQUEST_BYTES, offload

# Suffixes of the events that report usage.
_USAGE_EVENTS = ("response.done", "input_audio_transcription.completed")
_SESSION_EVENTS = ("session.created", "session.updated")

Message = str | bytes


class MeteredSession:
    """Messages of one WebSocket. `authenticate` returns the current caller, and is called again
    every `keys_refresh_s` seconds."""

    def __init__(
        self,
        permission: PermissionChecks,
        meter: RequestMeter,
        reservation: RequestReservation,
        authenticate: Callable[[], Caller],
        model: str,
        *,
        keys_refresh_s: float,
        body_limits: BodyLimits,
    ) -> None:
        self._permission = permission
        self.meter = meter
        self._reservation = reservation
        self._authenticate = authenticate
        self._model = model
        self._keys_refresh_s = keys_refresh_s
        self._body_limits = body_limits
        self._transcription_model: str | None = None
        self._caller = authenticate()

    async def check_message(self, message: Message) -> None:
        """Checks a message of the client. Raises `Forbidden` for a model or a tool in it that the
        project may not use, and `InvalidRequest` if the message cannot be read."""
        project = project_of(self._caller)
        if project.models is None and not project.forbidden_tools:
            return
        REQUEST_BYTES.set(len(message))
        await offload(self._check_event, project, message)

    def _check_event(self, project: Project, message: Message) -> None:
        check_bounds(message.encode() if isinstance(message, str) else message, self._body_limits)
        event = exact_json.parse_object(message)
        if event is None:
            raise InvalidRequest("The message is not a JSON object.", code="invalid_json")
        self._permission.check_body(project, event, message)

    def handle_upstream_message(self, message: Message) -> None:
        """Counts the usage that a message of the upstream reports. Raises `Forbidden` if the client
        named no model and the project may not use the upstream's own."""
        if not isinstance(message, str) or ('"usage"' not in message and '"model"' not in message):
            return
        event = exact_json.parse_object(message) or {}
        kind = str(event.get("type"))
        if kind in _SESSION_EVENTS:
            self._begin(event)
        elif kind.endswith(_USAGE_EVENTS):
            self._count(kind, message)

    async def recheck_forever(self) -> NoReturn:
        """Rechecks key and permissions until one fails, and raises the error of that check."""
        while True:
            await asyncio.sleep(self._keys_refresh_s)
            self._caller = self._authenticate()
            self._permission.check(self._caller, self._model, requires_model=False)

    def _begin(self, event: JsonObject) -> None:
        session = event.get("session")
        if not isinstance(session, dict):
            return
        model = session.get("model")
        if not self._model and isinstance(model, str):
            self._permission.check_models(project_of(self._caller), [model])
            self._model = self.meter.model = model
        others = {name: value for name, value in session.items() if name != "model"}
        self._transcription_model = next(find_named_models(others), None)

    def _count(self, kind: str, message: str) -> None:
        usage = parse_usage(message.encode())
        if usage is None:
            return
        model = self.meter.model
        if kind != "response.done":
            self.meter.model = self._transcription_model or model
        self.meter.count_tokens(usage)
        self.meter.count_request()
        self.meter.model = model
        self._reservation.charge(usage.input_tokens + usage.output_tokens)
