"""Chat renderer: turns chats and label scorings into prompts, by the loaded model's protocol."""

from collections.abc import Iterable, Mapping
from dataclasses import replace

from llm_backend import errors
from llm_backend.backends.base import Chat
from llm_backend.backends.local import label_scoring
from llm_backend.backends.local.engine_errors import translate_engine_errors
from llm_backend.backends.local.label_scoring import LabelScoring, RenderedScoring
from llm_backend.backends.local.media import Content, MediaPart, MediaReader, media_in
from llm_backend.backends.local.model_protocol import ModelProtocol, ProtocolCache, RenderedPrompt
from llm_backend.engine import EngineClient
from llm_backend.engine.messages import MediaKind, ModelInfo, ModelKind
from llm_backend.offload import offload, offload_schema

_MISSING_INPUT = {MediaKind.IMAGE: "sees no images", MediaKind.AUDIO: "hears no audio"}
_PURPOSES = {
    ModelKind.EMBEDDING: "embeddings",
    ModelKind.RERANK: "ranking documents",
    ModelKind.TRANSCRIPTION: "transcribing recordings",
    ModelKind.SPEECH: "reading texts aloud",
    ModelKind.DIARIZATION: "telling speakers apart",
    ModelKind.IMAGES: "drawing images",
}


class ChatRenderer:
    """Renders the chats of one model, which errors name `model`. `personalities` are system prompts
    by name."""

    def __init__(
        self,
        model: str,
        protocols: ProtocolCache,
        reader: MediaReader,
        personalities: Mapping[str, str],
    ) -> None:
        self._model = model
        self._protocols = protocols
        self._reader = reader
        self._personalities = personalities

    async def render(
        self, engine: EngineClient, request: Chat, personality: str | None
    ) -> RenderedPrompt:
        """Renders a chat; `personality` is for chats that name none. Raises `ContextLengthExceeded`
        before rendering if there are more messages than the context has tokens."""
        protocol = await self.protocol(engine)
        info = engine.info
        assert info is not None, "`engine.ready()` was awaited before"
        if len(request.messages) > info.context_tokens:
            raise errors.ContextLengthExceeded(
                f"This model's context is {info.context_tokens} tokens; {len(request.messages)} "
                f"messages have at least {len(request.messages)} tokens. Leave out the oldest.",
                param="messages",
            )
        render = offload_schema if protocol.compiles_schemas(request) else offload
        return await render(self._render, protocol, request, info, personality)

    async def render_scoring(self, engine: EngineClient, scoring: LabelScoring) -> RenderedScoring:
        """Renders the messages and questions of a label scoring."""
        protocol, info = await self.protocol(engine), await engine.ready()
        return await offload(self._render_scoring, protocol, scoring, info)

    async def protocol(self, engine: EngineClient) -> ModelProtocol:
        """Returns the protocol of the loaded file, which may differ after a reload. Raises
        `InvalidRequest` if it is not a chat model."""
        with translate_engine_errors():
            info = await engine.ready()
            if info.kind is not ModelKind.CHAT:
                raise errors.InvalidRequest(
                    f"`{self._model}` is a model for {_PURPOSES[info.kind]}; it cannot chat.",
                    param="model",
                )
            return await self._protocols.get(engine)

    def check_personality(self, name: str) -> None:
        """Raises `InvalidRequest` for a personality that the model does not have."""
        if name not in self._personalities:
            known = ", ".join(self._personalities) or "none"
            raise errors.InvalidRequest(
                f"`{self._model}` has no personality `{name[:100]}`; it has: {known}.",
                param="personality",
            )

    def _render(
        self, protocol: ModelProtocol, request: Chat, info: ModelInfo, personality: str | None
    ) -> RenderedPrompt:
        self._check_media((message.get("content") for message in request.messages), info)
        return protocol.render(self._with_personality(request, personality))

    def _render_scoring(
        self, protocol: ModelProtocol, scoring: LabelScoring, info: ModelInfo
    ) -> RenderedScoring:
        self._check_media(label_scoring.contents_of(scoring), info)
        return label_scoring.render(protocol, scoring)

    def _check_media(self, contents: Iterable[Content], info: ModelInfo) -> None:
        """Checks images and audio before they are rendered. Raises `UnsupportedField` for a
        medium that the model has no input for, `InvalidRequest` for too many."""
        self._reader.check_count(self._check_medium(file, info) for file in media_in(contents))

    def _check_medium(self, file: MediaPart, info: ModelInfo) -> MediaPart:
        if file.medium not in info.media:
            raise missing_input(self._model, file)
        return file

    def _with_personality(self, request: Chat, default: str | None) -> Chat:
        if request.personality is not None:
            self.check_personality(request.personality)
        name = request.personality or default
        has_system_message = any(one["role"] == "system" for one in request.messages)
        if name is None or has_system_message or not request.has_personality:
            return request
        system = {"role": "system", "content": self._personalities[name]}
        return replace(request, messages=[system, *request.messages])


def missing_input(model: str, file: MediaPart) -> errors.UnsupportedField:
    """Returns the error for a file of a medium that the model has no input for."""
    message = f"The model `{model}` {_MISSING_INPUT[file.medium]}."
    return errors.UnsupportedField(message, param=file.param)


def names_of_media(prompt: RenderedPrompt) -> dict[str, str]:
    """Maps the engine's names of media fields, `media[NUMBER]`, to the client's."""
    return {f"media[{index}]": file.param for index, (_, file) in enumerate(prompt.media)}
