"""Model registry: resolves a model name, alias or route to local models and upstreams."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from llm_backend.backends.base import ModelCard
from llm_backend.backends.local.local_model import LocalModel
from llm_backend.backends.speech import EspeakModel
from llm_backend.builtin import BUILTIN_ID
from llm_backend.close_names import closest_name
from llm_backend.errors import InvalidRequest, ModelNotFound
from llm_backend.extras import is_installed, missing_engine_hint
from llm_backend.json_types import JsonMapping

IMAGES = "Images"
"""Tag of the operations that image servers answer."""


@dataclass(frozen=True, kw_only=True)
class UpstreamModel:
    """Model of one upstream, or of any upstream that serves it."""

    model: str
    upstream: str | None = None


@dataclass(frozen=True, kw_only=True)
class ImageServerModel:
    """Model of one image server, or of any image server that serves it; `model` None is the one
    that the server has loaded."""

    model: str | None
    upstream: str | None = None


RouteTarget = LocalModel | EspeakModel | UpstreamModel | ImageServerModel
"""Target of a route; its targets are tried in order."""


class ModelSource(Protocol):
    """Interface of the upstreams that the registry uses."""

    def serves(self, model: str, operation: Sequence[str] = ()) -> bool:
        """Returns True if an upstream serves this model."""
        ...

    async def models(self) -> Sequence[JsonMapping]:
        """Lists the upstreams' model objects unchanged; those of a failed upstream are missing."""
        ...


class Registry:
    """Resolves names: routes first, then local models by name, alias and personality
    (`NAME:PERSONALITY`), then upstreams whose settings cover the name. Image servers come before
    upstreams for operations on images, and after them for others."""

    def __init__(
        self,
        local: Sequence[LocalModel],
        aliases: Mapping[str, str] | None = None,
        upstreams: ModelSource | None = None,
        routes: Mapping[str, Sequence[UpstreamModel | ImageServerModel | str]] | None = None,
        espeak_model: EspeakModel | None = None,
        image_servers: ModelSource | None = None,
    ) -> None:
        """Targets of `routes` that are strings name local models, or the `espeak_model`."""
        self._upstreams = upstreams
        self._image_servers = image_servers
        self._espeak_model = espeak_model
        self._routes = dict(routes or {})
        self.serve(local, aliases or {})

    def serve(self, local: Sequence[LocalModel], aliases: Mapping[str, str]) -> None:
        """Replaces the local models and their aliases."""
        self._local = {model.card.id: model for model in local}
        self._aliases = dict(aliases)
        self._named = dict(self._names())

    @property
    def espeak_model(self) -> EspeakModel | None:
        """The model of `espeak-ng`, whether or not the program is installed."""
        return self._espeak_model

    @property
    def local(self) -> Sequence[LocalModel]:
        """Local models, in the order of the settings."""
        return list(self._local.values())

    @property
    def usable(self) -> Sequence[LocalModel]:
        """Local models, except those that need an extra which is not installed: for speech,
        recordings, speakers or drawing."""
        draws = is_installed("draw")
        return [
            model
            for model in self.local
            if (files := model.voice or model.recognizer or model.diarization) is None
            or is_installed(files.extra)
            if draws or model.image_setup is None
        ]

    @property
    def diarization_model(self) -> LocalModel | None:
        """The first local model that tells speakers apart, whether or not its extra is
        installed."""
        return next((one for one in self.local if one.diarization is not None), None)

    @property
    def drawing_models(self) -> Sequence[LocalModel]:
        """Local models that draw, whether or not their extra is installed."""
        return [model for model in self.local if model.image_setup is not None]

    def targets(self, name: str, operation: Sequence[str] = ()) -> Sequence[RouteTarget]:
        """Returns the targets of a name, in the order of fallback; at least one.

        `operation` is the id and tag of the request's operation. Raises `ModelNotFound`.
        """
        if routed := self._route_targets(name):
            return routed
        if (own := self._own(name)) is not None:
            return (own,)
        image = self._image_model(name, operation)
        if image is not None and IMAGES in operation:
            return (image,)
        if self._upstreams is not None and self._upstreams.serves(name, operation):
            return (UpstreamModel(model=name),)
        if image is None:
            raise self._not_served(name)
        return (image,)  # its controller answers that this model only draws

    def is_own_name(self, name: str) -> bool:
        """Returns True if a local model or a route has this name."""
        return self._own(name) is not None or name in self._routes

    def models_of(self, name: str) -> tuple[str, ...]:
        """Returns the models that a name stands for: those of a route's targets, or the local one
        of an alias or a personality; none for a name of upstreams."""
        if name in self._routes:
            return tuple(
                self._model_id(target) if isinstance(target, str) else target.model or ""
                for target in self._routes[name]
            )
        return (self._model_id(name),) if name in self._named else ()

    def is_voice(self, name: str) -> bool:
        """Returns True if the first target of a name speaks. Raises `ModelNotFound`."""
        first = self.targets(name)[0]
        return isinstance(first, EspeakModel) or (
            isinstance(first, LocalModel) and first.voice is not None
        )

    def is_image_model(self, name: str) -> bool:
        """Returns True if the first target of a name draws. Raises `ModelNotFound`."""
        first = self.targets(name)[0]
        return isinstance(first, ImageServerModel) or (
            isinstance(first, LocalModel) and first.image_setup is not None
        )

    @property
    def has_image_servers(self) -> bool:
        """True if an image server is configured."""
        return self._image_servers is not None

    async def image_models(self) -> list[JsonMapping]:
        """Lists the image servers' models whose names are not used by this server."""
        if self._image_servers is None:
            return []
        listed = await self._image_servers.models()
        return [one for one in listed if not self.is_own_name(one.get("id", ""))]

    def for_model(self, name: str, operation: Sequence[str] = ()) -> LocalModel | None:
        """Returns the first target of a name if it is a local model; None if it is an upstream.

        Raises `ModelNotFound`, and `InvalidRequest` for `builtin-voice` and models of
        image servers. Local models are returned, also those that speak or draw.
        """
        first = self.targets(name, operation)[0]
        if isinstance(first, EspeakModel | ImageServerModel):
            raise wrong_operation(first)
        return first if isinstance(first, LocalModel) else None

    def local_target(self, name: str) -> LocalModel | None:
        """Returns the first local model among the targets of a name; None if there is none.

        Raises `ModelNotFound` for a name without targets.
        """
        return next(
            (target for target in self.targets(name) if isinstance(target, LocalModel)), None
        )

    def local_names(self) -> list[str]:
        """Lists the names that have a local model among their targets."""
        return [
            name
            for name in {**self._named, **self._routes}
            if any(
                isinstance(target, LocalModel)
                for target in self._route_targets(name) or (self._own(name),)
            )
        ]

    def local_cards(self) -> list[ModelCard]:
        """Lists the cards of usable local models, of their personalities and aliases, of the voice
        of `espeak-ng` if it is installed, and of routes that have targets."""
        usable = self.usable
        cards = [self.card(model) for model in usable]
        personalities = [
            _rename_card(
                self.card(model), f"{model.card.id}:{name}", ("personality_of", model.card.id)
            )
            for model in usable
            for name in model.personalities
        ]
        aliases = [
            _rename_card(self.card(self._local[name]), alias, ("alias_of", name))
            for alias, name in self._aliases.items()
            if self._local[name] in usable
        ]
        routes = [
            ModelCard(id=route, created_at=0, owned_by="llm-backend")
            for route in self._routes
            if self._own(route) is None and self._route_targets(route)
        ]
        voice = self._espeak_model
        voices = [voice.card] if voice is not None and voice.is_installed else []
        return [*cards, *personalities, *aliases, *voices, *routes]

    @staticmethod
    def card(model: LocalModel) -> ModelCard:
        """Returns the card of a local model, with its load state."""
        return replace(model.card, more=(*model.card.more, ("status", str(model.state))))

    def choose_personality(self, model: str, name: str) -> None:
        """Sets the personality of requests for the plain name, or an alias."""
        self._local[model].choose_personality(name)

    async def upstream_models(self) -> list[JsonMapping]:
        """Lists the models of upstreams and image servers whose names are not used by this
        server."""
        images = await self.image_models()
        if self._upstreams is None:
            return images
        named = {one["id"] for one in images}
        listed = [one for one in await self._upstreams.models() if one.get("id", "") not in named]
        return [*(one for one in listed if not self.is_own_name(one.get("id", ""))), *images]

    def _image_model(self, name: str, operation: Sequence[str]) -> ImageServerModel | None:
        servers = self._image_servers
        is_served = servers is not None and servers.serves(name, operation)
        return ImageServerModel(model=name) if is_served else None

    def _model_id(self, name: str) -> str:
        return self._named[name].card.id if name in self._named else name

    def _own(self, name: str) -> LocalModel | EspeakModel | None:
        """Returns the local model, or the `espeak_model`, of this name."""
        is_voice = self._espeak_model is not None and name == self._espeak_model.card.id
        return self._espeak_model if is_voice else self._named.get(name)

    def _not_served(self, name: str) -> ModelNotFound:
        """Returns the error for a name without targets, with a hint if only the local engine, which
        is missing, could serve the name."""
        has_others = self._upstreams is not None or self._image_servers is not None
        hint = missing_engine_hint() if name == BUILTIN_ID or not has_others else ""
        listed = (card.id for card in self.local_cards())
        return ModelNotFound(name, closest_name(name, listed), hint)

    def _route_targets(self, name: str) -> Sequence[RouteTarget]:
        """Returns the targets of a route, without removed local models."""
        targets = self._routes.get(name, ())
        named = [self._own(target) if isinstance(target, str) else target for target in targets]
        return [target for target in named if target is not None]

    def _names(self) -> Iterator[tuple[str, LocalModel]]:
        plain = {name: name for name in self._local} | self._aliases
        for name, model_id in plain.items():
            model = self._local[model_id]
            yield name, model
            for personality in model.personalities:
                yield f"{name}:{personality}", model.as_personality(personality)


def wrong_operation(model: EspeakModel | ImageServerModel) -> InvalidRequest:
    """Returns the error of an operation that a voice, or a model that draws, does not answer."""
    if isinstance(model, EspeakModel):
        reason = f"`{model.card.id}` is a voice: it answers POST /v1/audio/speech only."
    else:
        reason = f"`{model.model}` draws images: it answers /v1/images only."
    return InvalidRequest(reason, param="model")


def _rename_card(card: ModelCard, name: str, more: tuple[str, str]) -> ModelCard:
    """Returns the card of the same model under another name."""
    return replace(card, id=name, more=(*card.more, more))
