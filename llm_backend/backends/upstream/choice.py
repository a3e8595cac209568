"""Which upstreams may answer a request (pure)."""

from collections.abc import Mapping, Sequence
from functools import lru_cache

from llm_backend.backends.upstream.config import UpstreamConfig

__all__ = ["Choices"]

_NAMES_KEPT = 1024  # clients choose names, and few


class Choices:
    """Upstreams by model and by operation, in the order of the settings.

    A model is asked of those that name it; else of the operation's own; else of those that serve
    any model. What names no model is asked of the operation's own upstream, else of the first that
    serves any, else of the first: what one request makes, the next must find there.
    """

    def __init__(
        self, upstreams: Sequence[UpstreamConfig], operations: Mapping[str, str] | None = None
    ) -> None:
        self._upstreams = list(upstreams)
        self._operations = {name.lower(): by for name, by in (operations or {}).items()}
        self._any = [one.name for one in upstreams if one.serves_any]
        self.for_model = lru_cache(maxsize=_NAMES_KEPT)(self._for_model)

    def serves(self, model: str, operation: Sequence[str] = ()) -> bool:
        """Whether anybody can be asked for this model."""
        return bool(self.for_model(model, tuple(operation)))

    def _for_model(self, model: str, operation: tuple[str, ...]) -> Sequence[str]:
        """The names of those that may answer for a model; empty where nobody does."""
        naming = [one.name for one in self._upstreams if one.names(model)]
        own = self._own(operation)
        return naming or ([own] if own else self._any)

    def for_operation(self, operation: Sequence[str]) -> list[str]:
        """The name of the one that answers what names no model."""
        own = self._own(operation)
        return [own] if own else (self._any or [one.name for one in self._upstreams])[:1]

    def _own(self, operation: Sequence[str]) -> str | None:
        """The upstream of an operation: by its id, else by its tag."""
        found = [self._operations.get(name.lower()) for name in operation]
        return next((name for name in found if name), None)
