"""Values of webhook endpoints and of failed deliveries."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class StoredEndpoint:
    """A webhook endpoint. While `previous_secret` holds, deliveries are signed with it as well. A
    disabled endpoint gets no events."""

    id: str
    created_at: int  # unix seconds
    name: str
    url: str
    event_types: Sequence[str]
    secret: str = field(repr=False)
    updated_at: int
    previous_secret: str | None = field(default=None, repr=False)
    previous_secret_until: int | None = None
    disabled_at: int | None = None

    def active_secrets(self, now: float) -> Sequence[str]:
        """The secrets that deliveries are signed with at this time, the present one first."""
        if self.previous_secret is None or now >= (self.previous_secret_until or 0):
            return (self.secret,)
        return self.secret, self.previous_secret


@dataclass(frozen=True, kw_only=True)
class EndpointChanges:
    """Changes of an endpoint; None leaves a value as it is."""

    name: str | None = None
    url: str | None = None
    event_types: Sequence[str] | None = None


@dataclass(frozen=True, kw_only=True)
class FailedDelivery:
    """The end of a delivery that failed."""

    attempts: int
    status_code: int | None  # of the last answer, if there was one
    reason: str  # a sentence
    gone_at: float | None = None  # unix seconds of the request that the endpoint answered by 410


@dataclass(frozen=True, kw_only=True)
class StoredFailure:
    """Record of an event that an endpoint never got; `is_disabling` if it disabled the endpoint."""

    id: str
    created_at: int  # unix seconds
    endpoint_id: str
    event_id: str
    event_type: str
    subject_id: str
    attempts: int
    status_code: int | None
    reason: str
    is_disabling: bool


def _ignore(_: int) -> None:
    """Do nothing with the number."""


@dataclass(frozen=True, kw_only=True)
class DeliveryLimit:
    """Limit of the deliveries that wait for one endpoint; `on_dropped` gets the number of further
    ones, which are recorded as failures."""

    waiting: int
    on_dropped: Callable[[int], None] = _ignore
