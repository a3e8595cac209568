"""Model name, alias or route -> who answers for it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from llm_backend.backends.base import ModelCard
from llm_backend.backends.local.local_model import LocalModel
from llm_backend.errors import ModelNotFound

__all__ = ["ModelSource", "Registry", "Step", "UpstreamModel"]


@dataclass(frozen=True, kw_only=True)
class UpstreamModel:
    """A model of one upstream, or of whichever serves it."""

    model: str
    upstream: str | None = None


Step = LocalModel | UpstreamModel
"""One of those that answer for a name, in the order in which they are asked."""


class ModelSource(Protocol):
    """What the registry needs of the upstreams."""

    def serves(self, model: str, operation: Sequence[str] = ()) -> bool:
        """Whether one of them can be asked for a model."""
        ...

    async def models(self) -> Sequence[Mapping[str, Any]]:
        """Their model objects, as they send them; those of one that is down are missing."""
        ...


class Registry:
    """Routes first, then local models by name, alias and personality (`NAME:PERSONALITY`); every
    other name is the upstreams' whose settings cover it."""

    def __init__(
        self,
        local: Sequence[LocalModel],
        aliases: Mapping[str, str] | None = None,
        upstreams: ModelSource | None = None,
        routes: Mapping[str, Sequence[UpstreamModel | str]] | None = None,
    ) -> None:
        """The steps of `routes` that are strings are local models."""
        self._upstreams = upstreams
        self._routes = dict(routes or {})
        self.serve(local, aliases or {})

    def serve(self, local: Sequence[LocalModel], aliases: Mapping[str, str]) -> None:
        """From now on these are the local models and their aliases."""
        self._local = {model.card.id: model for model in local}
        self._aliases = dict(aliases)
        self._named = dict(self._names())

    @property
    def local(self) -> Sequence[LocalModel]:
        """All local models, in the order of the settings."""
        return list(self._local.values())

    def steps(self, name: str, operation: Sequence[str] = ()) -> Sequence[Step]:
        """Those that answer for a name, the next one where one cannot; at least one.

        `operation` is the id and tag of what is asked. Raises `ModelNotFound` where nobody does.
        """
        if routed := self._routed(name):
            return routed
        if name in self._named:
            return (self._named[name],)
        if self._upstreams is None or not self._upstreams.serves(name, operation):
            raise ModelNotFound(name)
        return (UpstreamModel(model=name),)

    def knows(self, name: str) -> bool:
        """Whether a local model or a route has this name."""
        return name in self._named or name in self._routes

    def for_model(self, name: str, operation: Sequence[str] = ()) -> LocalModel | None:
        """The local model that is the first to answer for a name; None where an upstream is.

        Raises `ModelNotFound` where nobody does.
        """
        first = self.steps(name, operation)[0]
        return first if isinstance(first, LocalModel) else None

    def local_step(self, name: str) -> LocalModel | None:
        """The first local model among those that answer for a name; None where there is none.

        Raises `ModelNotFound` where nobody answers.
        """
        return next((step for step in self.steps(name) if isinstance(step, LocalModel)), None)

    def local_cards(self) -> list[ModelCard]:
        """Local models, their personalities and aliases, and routes, each as a model of its own
        name."""
        cards = [self.card(model) for model in self.local]
        personalities = [
            _also(self.card(model), f"{model.card.id}:{name}", ("personality_of", model.card.id))
            for model in self.local
            for name in model.personalities
        ]
        aliases = [
            _also(self.card(self._local[name]), alias, ("alias_of", name))
            for alias, name in self._aliases.items()
        ]
        routes = [
            ModelCard(id=route, created_at=0, owned_by="llm-backend")
            for route in self._routes
            if route not in self._named
        ]
        return [*cards, *personalities, *aliases, *routes]

    @staticmethod
    def card(model: LocalModel) -> ModelCard:
        """What a local model says of itself, and whether it is in memory."""
        return replace(model.card, more=(*model.card.more, ("status", str(model.state))))

    def choose_personality(self, model: str, name: str) -> None:
        """From now on requests for the plain name, or an alias, get this one."""
        self._local[model].choose_personality(name)

    async def upstream_models(self) -> list[Mapping[str, Any]]:
        """The upstreams' models that no name of this server hides."""
        if self._upstreams is None:
            return []
        own = {*self._named, *self._routes}
        return [model for model in await self._upstreams.models() if model.get("id") not in own]

    def _routed(self, name: str) -> Sequence[Step]:
        """The steps of a route, without local models that are served no more."""
        steps = self._routes.get(name, ())
        named = [self._named.get(step) if isinstance(step, str) else step for step in steps]
        return [step for step in named if step is not None]

    def _names(self) -> Iterator[tuple[str, LocalModel]]:
        plain = {name: name for name in self._local} | self._aliases
        for name, model_id in plain.items():
            model = self._local[model_id]
            yield name, model
            for personality in model.personalities:
                yield f"{name}:{personality}", model.as_personality(personality)


def _also(card: ModelCard, name: str, more: tuple[str, str]) -> ModelCard:
    """The card of the same model under another name."""
    return replace(card, id=name, more=(*card.more, more))
