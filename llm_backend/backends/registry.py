"""Model name or alias -> who answers for it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

from llm_backend.backends.base import ModelCard
from llm_backend.backends.local import LocalModel
from llm_backend.errors import ApiError, ModelNotFound

__all__ = ["ModelSource", "Registry"]


class ModelSource(Protocol):
    """What the registry needs of an upstream."""

    async def models(self) -> Sequence[Mapping[str, Any]]:
        """The upstream's model objects, as it sends them."""
        ...


class Registry:
    """Local models by name, alias and personality (`NAME:PERSONALITY`); every other name is the
    upstream's, if there is one."""

    def __init__(
        self,
        local: Sequence[LocalModel],
        aliases: Mapping[str, str] | None = None,
        upstream: ModelSource | None = None,
    ) -> None:
        self._local = {model.card.id: model for model in local}
        self._aliases = dict(aliases or {})
        self._upstream = upstream
        self._named = dict(self._names())

    @property
    def local(self) -> Sequence[LocalModel]:
        """All local models, in the order of the settings."""
        return list(self._local.values())

    def for_model(self, name: str) -> LocalModel | None:
        """The local model of this name or alias; None where the upstream answers for it.

        Raises `ModelNotFound` where nobody does.
        """
        model = self._named.get(name)
        if model is None and self._upstream is None:
            raise ModelNotFound(name)
        return model

    def local_cards(self) -> list[ModelCard]:
        """Local models, their personalities and aliases, each as a model of its own name."""
        cards = [model.card for model in self.local]
        personalities = [
            _also(model.card, f"{model.card.id}:{name}", ("personality_of", model.card.id))
            for model in self.local
            for name in model.personalities
        ]
        aliases = [
            _also(self._local[name].card, alias, ("alias_of", name))
            for alias, name in self._aliases.items()
        ]
        return [*cards, *personalities, *aliases]

    async def upstream_models(self) -> list[Mapping[str, Any]]:
        """The upstream's models that no local name hides; none while it cannot be reached."""
        if self._upstream is None:
            return []
        try:
            models = await self._upstream.models()
        except ApiError:  # logged where it happened; an upstream that is down hides only its own
            return []
        return [model for model in models if model.get("id") not in self._named]

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
