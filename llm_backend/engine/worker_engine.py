"""Base class of a worker's engines, one for each kind of model."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import asdict

from llm_backend.engine.messages import ComputedCommand, Failed, Failure, LoadModel, Status
from llm_backend.engine.messages.address import Address, Publish
from llm_backend.engine.statistics import Statistics


class WorkerEngine(ABC):
    """Owns all requests between `submit` and their last event."""

    def __init__(self, config: LoadModel, publish: Publish) -> None:
        self._config = config
        self._publish = publish
        self.statistics = Statistics(deaths=config.deaths)

    @property
    @abstractmethod
    def is_idle(self) -> bool:
        """True if a step would have nothing to do."""

    @property
    @abstractmethod
    def addresses(self) -> Iterable[Address]:
        """Addresses of all requests."""

    @abstractmethod
    def submit(self, address: Address, command: ComputedCommand, now: float) -> None:
        """Queues a command. Raises `CommandRefused`."""

    @abstractmethod
    def cancel(self, address: Address) -> None:
        """Removes a request, whether it waits or is computed. Unknown addresses are ignored."""

    @abstractmethod
    def step(self, now: float) -> None:
        """Computes one pass, and publishes its events."""

    @abstractmethod
    def abort(self, message: str) -> None:
        """Fails the requests of a step that raised an error."""

    @abstractmethod
    def status(self, name: str) -> Status:
        """Returns the engine's status, which answers the probe with the id `name`."""

    def cancel_connection(self, connection: int) -> None:
        """Cancels all requests of a closed connection."""
        for address in [one for one in self.addresses if one.connection == connection]:
            self.cancel(address)

    def wait(self) -> None:  # noqa: B027 # most engines compute everything in their steps
        """Waits a moment if the next step needs work that is done outside the steps (a grammar, a
        file)."""

    def idle_timeout_s(self, now: float) -> float | None:
        """Returns the seconds until an idle engine needs a step without a command; None for
        never."""
        return None

    def close(self) -> None:  # noqa: B027 # most engines have nothing to close
        """Finishes commands in progress, before the worker ends."""

    def _status(
        self, name: str, *, running: int, waiting: int, cell_tokens: int = 0, **more: int
    ) -> Status:
        return Status(
            id=name,
            running=running,
            waiting=waiting,
            cell_tokens=cell_tokens,
            **more,
            **asdict(self.statistics),
        )

    def _fail(
        self,
        address: Address,
        failure: Failure,
        message: str,
        field: str | None = None,
        location: str | None = None,
    ) -> None:
        """Removes a request and publishes its failure."""
        self.cancel(address)
        event = Failed(
            id=address.id, failure=failure, message=message, field=field, location=location
        )
        self._publish(address, event)
