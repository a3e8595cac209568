"""Model name or alias -> who answers for it."""

from collections.abc import Mapping, Sequence
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
    """Local models by name and alias; every other name is the upstream's, if there is one."""

    def __init__(
        self,
        local: Sequence[LocalModel],
        aliases: Mapping[str, str] | None = None,
        upstream: ModelSource | None = None,
    ) -> None:
        self._local = {model.card.id: model for model in local}
        self._aliases = dict(aliases or {})
        self._upstream = upstream

    @property
    def local(self) -> Sequence[LocalModel]:
        """All local models, in the order of the settings."""
        return list(self._local.values())

    def for_model(self, name: str) -> LocalModel | None:
        """The local model of this name or alias; None where the upstream answers for it.

        Raises `ModelNotFound` where nobody does.
        """
        model = self._local.get(self._aliases.get(name, name))
        if model is None and self._upstream is None:
            raise ModelNotFound(name)
        return model

    def local_cards(self) -> list[ModelCard]:
        """Local models and their aliases, each as a model of its own name."""
        cards = [model.card for model in self.local]
        return cards + [
            ModelCard(
                id=alias,
                created_at=self._local[name].card.created_at,
                owned_by=self._local[name].card.owned_by,
                more=(*self._local[name].card.more, ("alias_of", name)),
            )
            for alias, name in self._aliases.items()
        ]

    async def upstream_models(self) -> list[Mapping[str, Any]]:
        """The upstream's models that no local name hides; none while it cannot be reached."""
        if self._upstream is None:
            return []
        try:
            models = await self._upstream.models()
        except ApiError:  # logged where it happened; an upstream that is down hides only its own
            return []
        own = {card.id for card in self.local_cards()}
        return [model for model in models if model.get("id") not in own]
