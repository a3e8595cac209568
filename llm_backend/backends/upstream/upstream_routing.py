"""Routing: the upstreams that may answer a model or an operation (pure)."""

from collections.abc import Mapping, Sequence
from functools import lru_cache

from llm_backend.backends.upstream.config import UpstreamConfig

_NAMES_KEPT = 1024  # size of the LRU cache: names come from clients, and few differ


class UpstreamRouting:
    """Upstreams by model and by operation, in the order of the settings.

    A model is answered by the upstreams that name it; else by the operation's own upstream; else by
    those that serve any model. A request without a model goes to the operation's own upstream, else
    to the first that serves any model, else to the first. Such requests always go to the same
    upstream, because later ones must find the objects that earlier ones created.
    """

    def __init__(
        self, upstreams: Sequence[UpstreamConfig], operations: Mapping[str, str] | None = None
    ) -> None:
        self._upstreams = list(upstreams)
        self._operations = {name.lower(): by for name, by in (operations or {}).items()}
        self._any = [one.name for one in upstreams if one.serves_any]
        self.for_model = lru_cache(maxsize=_NAMES_KEPT)(self._for_model)

    def serves(self, model: str, operation: Sequence[str] = ()) -> bool:
        """Returns True if an upstream serves this model."""
        return bool(self.for_model(model, tuple(operation)))

    def _for_model(self, model: str, operation: tuple[str, ...]) -> Sequence[str]:
        """Returns the names of the upstreams that may answer a model; empty if none."""
        naming = [one.name for one in self._upstreams if one.matches(model)]
        own = self._own(operation)
        return naming or ([own] if own else self._any)

    def for_operation(self, operation: Sequence[str]) -> list[str]:
        """Returns the name of the upstream for requests without a model."""
        own = self._own(operation)
        return [own] if own else (self._any or [one.name for one in self._upstreams])[:1]

    def is_bound(self, operation: Sequence[str]) -> bool:
        """Returns True if the settings bind the operation to one upstream."""
        return self._own(operation) is not None

    def _own(self, operation: Sequence[str]) -> str | None:
        """Returns the upstream of an operation: by its id, else by its tag."""
        found = [self._operations.get(name.lower()) for name in operation]
        return next((name for name in found if name), None)
