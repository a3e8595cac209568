"""Engine lease: a client's right to use an engine that another process owns."""

from collections.abc import Callable

from llm_backend.backends.local.engine_users import EngineUsers
from llm_backend.backends.local.shared_manager.manager_messages import (
    ClientMessage,
    EngineBusy,
    EngineIdle,
)
from llm_backend.engine import EngineClient

IDLE_S = 0.2  # shorter gaps, as between two requests of a sequential client, do not report idle


class EngineLease(EngineUsers):
    """Lease of one engine. The first request reports it busy; `IDLE_S` after the last, idle."""

    def __init__(
        self,
        model: str,
        socket_path: str,
        engine: EngineClient,
        send: Callable[[ClientMessage], None],
    ) -> None:
        super().__init__(IDLE_S, self._report_idle)
        self.model = model
        self.socket_path = socket_path
        self.engine = engine
        self.is_ending = False
        self._send = send
        self._is_busy = False  # as last reported to the owner

    def enter(self) -> None:
        super().enter()
        if not self._is_busy:
            self._is_busy = True
            self._send(EngineBusy(socket_path=self.socket_path))

    def _report_idle(self) -> None:
        self._is_busy = False
        self._send(EngineIdle(socket_path=self.socket_path))
