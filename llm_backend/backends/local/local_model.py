"""Local model: chats, completions, embeddings and ranking, computed by its engine."""

import asyncio
import copy
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Self, cast

from llm_backend import errors
from llm_backend.backends.base import Chat, Meter, ModelCard, TextPrompt, Usage
from llm_backend.backends.local import label_scoring
from llm_backend.backends.local.admitted_generation import (
    AdmittedGeneration,
    share_resources,
)
from llm_backend.backends.local.chat_formats import ChatFormat
from llm_backend.backends.local.chat_rendering import (
    ChatRenderer,
    missing_input,
    names_of_media,
)
from llm_backend.backends.local.chat_template import ChatTemplate
from llm_backend.backends.local.engine_commands import chat_command, prompt_command
from llm_backend.backends.local.engine_errors import translate_engine_errors
from llm_backend.backends.local.grammar_field import GrammarField
from llm_backend.backends.local.image_setup import LocalImageSetup
from llm_backend.backends.local.label_scoring import LabelScoring
from llm_backend.backends.local.markup import MarkupParser
from llm_backend.backends.local.media import Image, MediaReader
from llm_backend.backends.local.model_handle import ModelHandle, ModelState
from llm_backend.backends.local.model_protocol import ProtocolCache
from llm_backend.engine import EngineClient
from llm_backend.engine.messages import (
    Embedded,
    Generate,
    ModelInfo,
    ModelKind,
    Priority,
    RankScores,
)
from llm_backend.json_types import JsonMapping, JsonMappingT, without_nulls
from llm_backend.model_files import (
    DiarizationFiles,
    GgufHeader,
    HeaderError,
    RecognizerFiles,
    SpeakingFiles,
)


@dataclass(frozen=True, kw_only=True)
class RenderedChat:
    """A chat's prompt as text and as tokens; None stands for each embedding of an image or
    audio."""

    text: str
    tokens: Sequence[int | None]


Observe = Callable[[str, str, Priority, Usage], None]
"""Callback with the model, the operation (`chat` or `text_completion`, OpenTelemetry's names), the
priority and the usage of each finished generation."""


def _ignore_usage(model: str, operation: str, priority: Priority, usage: Usage) -> None:
    """Default observer, which ignores the usage."""


class LocalModel:
    """One local model, loaded on demand. Every method may raise an `ApiError`, before the first
    delta if possible: an unusable template, a full queue, a prompt longer than the context.

    `chat_format` replaces the model's own template. `personalities` are system prompts by name;
    `personality` names the one for chats without a system message. `defaults` are default fields of
    requests. `vector_stores` are the ids of the vector stores that chats search. `is_generative`
    finds in the file whether the model generates text, and `read_header` reads the file's header. A
    text to embed has up to `batch_tokens` tokens, and a text to tokenize up to `tokenize_bytes`
    bytes. `reader` decodes media of messages. Models of other kinds have files of their own:
    `voice` is for speech, `diarization` for telling speakers apart, `recognizer` for transcription
    by a NeMo model, and `image_setup` for drawing. `transcribes` is True for a model
    made for transcription.
    """

    def __init__(
        self,
        card: ModelCard,
        handle: ModelHandle,
        observe: Observe = _ignore_usage,
        *,
        tool_format: str | None = None,
        chat_format: ChatFormat | None = None,
        personalities: Mapping[str, str] | None = None,
        personality: str | None = None,
        defaults: JsonMapping | None = None,
        vector_stores: Sequence[str] = (),
        is_generative: Callable[[], bool] = lambda: False,
        read_header: Callable[[], GgufHeader] | None = None,
        batch_tokens: int = 512,
        reader: MediaReader | None = None,
        tokenize_bytes: int = 1024 * 1024,
        transcribes: bool = False,
        voice: SpeakingFiles | None = None,
        diarization: DiarizationFiles | None = None,
        recognizer: RecognizerFiles | None = None,
        image_setup: LocalImageSetup | None = None,
    ) -> None:
        self.image_setup = image_setup
        self.transcribes = transcribes
        self.voice = voice
        self.diarization = diarization
        self.recognizer = recognizer
        self._tokenize_bytes = tokenize_bytes
        self.card = card
        self.vector_stores = vector_stores
        self._is_generative = is_generative
        self._read_header = read_header
        self.batch_tokens = batch_tokens
        self._reader = reader or MediaReader()
        self.handle = handle
        self.personalities = dict(personalities or {})
        self._observe = observe
        self._renderer = ChatRenderer(
            card.id,
            ProtocolCache(tool_format, chat_format),
            self._reader,
            self.personalities,
        )
        self._chat_format = chat_format
        self._personality = personality
        self._defaults = dict(defaults or {})
        self.meter: Meter | None = None  # of the request that it answers

    @property
    def takes_text(self) -> bool:
        """True for a language model; False for models of recordings or images, and for voices."""
        others = (self.voice, self.diarization, self.image_setup)
        return not self.transcribes and all(one is None for one in others)

    @property
    def purpose(self) -> str:
        """Purpose of the model, as the predicate of a sentence about it."""
        if self.transcribes:
            return "transcribes"
        if self.voice is not None:
            return "reads texts aloud"
        if self.diarization is not None:
            return "tells speakers apart"
        return "is a language model" if self.image_setup is None else "draws images"

    @property
    def hears(self) -> bool:
        """True for a language model whose projector encodes audio."""
        return self.takes_text and "audio" in self._input_modalities

    @property
    def can_transcribe(self) -> bool:
        """True for a model of recordings, and for a language model that hears."""
        return self.transcribes or self.hears

    @property
    def state(self) -> ModelState:
        """Load state of the model."""
        return self.handle.state

    @property
    def engine(self) -> EngineClient | None:
        """The model's engine, also while it starts or has failed; None if the model is unloaded.
        For requests use `ModelHandle.use`, which keeps it loaded."""
        return self.handle.engine

    @property
    def engine_state(self) -> str:
        """State of the engine; `unloaded` if there is none."""
        engine = self.handle.engine
        return str(ModelState.UNLOADED if engine is None else engine.state)

    @property
    def accepts_images(self) -> bool:
        """True if the model's card lists images as an input modality."""
        return "image" in self._input_modalities

    @property
    def _input_modalities(self) -> Sequence[str]:
        modalities: Sequence[str] = dict(self.card.more).get("input_modalities", ())
        return modalities

    async def may_embed(self) -> bool:
        """Returns True if the model may be one for embeddings, without loading it."""
        if not self.takes_text:
            return False
        info = self.engine.info if self.engine else None
        if info is not None:
            return info.kind is ModelKind.EMBEDDING
        return not await asyncio.to_thread(self._is_generative)

    async def file_header(self) -> GgufHeader | None:
        """Returns the header of the model's file, without loading it. Raises `Internal` if the file
        cannot be read any more."""
        if self._read_header is None:
            return None
        try:
            return await asyncio.to_thread(self._read_header)
        except HeaderError as error:
            raise errors.Internal(str(error)) from error

    def check_personality(self, name: str) -> None:
        """Raises `InvalidRequest` for a personality that the model does not have."""
        self._renderer.check_personality(name)

    def choose_personality(self, name: str) -> None:
        """Sets the personality of requests that name none."""
        self._personality = name

    async def check_image(self, image: Image) -> None:
        """Raises `InvalidRequest`, which names the field, for an image that the model does not see
        or that cannot be decoded; does not load the model."""
        if not self.accepts_images:
            raise missing_input(self.card.id, image)
        await self._reader.decode([(0, image)])

    async def load(self) -> None:
        """Loads the model and waits for it."""
        with translate_engine_errors():
            await self.handle.load()

    async def unload(self) -> None:
        """Unloads the model after its running requests have finished."""
        await self.handle.unload()

    def as_personality(self, name: str | None) -> Self:
        """Returns a copy of the model with another personality, or with none."""
        other = copy.copy(self)
        other._personality = name
        return other

    def with_meter(self, meter: Meter | None) -> Self:
        """Returns a copy of the model whose generations are counted by the meter of a request."""
        metered = copy.copy(self)
        metered.meter = meter
        return metered

    def with_defaults(self, body: JsonMappingT) -> JsonMappingT:
        """Returns a request's body with this model's defaults for missing fields. A default grammar
        applies only to requests without `response_format` and `tools`."""
        fields = without_nulls(body)
        is_free = fields.keys().isdisjoint({"response_format", "tools"})
        defaults = {
            name: value for name, value in self._defaults.items() if is_free or name != "grammar"
        }
        return cast("JsonMappingT", defaults | fields)

    async def chat(self, request: Chat) -> AdmittedGeneration:
        """Renders a chat, submits it to the engine, and returns once the engine has assigned a
        slot."""
        async with AsyncExitStack() as resources:
            with translate_engine_errors():
                engine = await resources.enter_async_context(self.handle.use())
            answer = await self._generate_chat(engine, request)
            answer.take_over(resources.pop_all())
            return answer

    async def chat_beside(self, answer: AdmittedGeneration, request: Chat) -> AdmittedGeneration:
        """Submits a chat for which the reader of an answer of this model waits. They use the model
        together: while it is unloaded, the chat would wait for the unload, and the unload for the
        answer."""
        if answer.is_released:
            return await self.chat(request)
        other = await self._generate_chat(answer.engine, request)
        answer.share_resources(other)
        return other

    async def _generate_chat(self, engine: EngineClient, request: Chat) -> AdmittedGeneration:
        prompt = await self._renderer.render(engine, request, self._personality)
        stops = () if self._chat_format is None else self._chat_format.stop
        command = chat_command(request, prompt, await self._reader.decode(prompt.media), stops)
        names: dict[str, str | GrammarField] = {
            "prompt": "messages",
            "grammar": prompt.grammar_field,
            **names_of_media(prompt),
        }
        return await self._generate(engine, "chat", command, names, prompt.parser)

    async def load_context_tokens(self) -> int:
        """Loads the model and returns its context length: tokens of prompt and answer together."""
        async with self._use_engine() as engine:
            return (await engine.ready()).context_tokens

    async def count_prompt_tokens(self, request: Chat) -> int:
        """Counts the tokens of a chat's prompt."""
        return len((await self.render_chat(request)).tokens)

    async def render_chat(self, request: Chat) -> RenderedChat:
        """Renders and tokenizes a chat's prompt."""
        async with self._use_engine(prompt="messages") as engine:
            prompt = await self._renderer.render(engine, request, self._personality)
            if _is_longer(prompt.text, self._tokenize_bytes):
                raise errors.ContextLengthExceeded(
                    f"The chat has {len(prompt.text)} characters, too many to count its tokens: "
                    f"{self._tokenize_bytes} bytes at most (`tokenize_limit_bytes`).",
                    param="messages",
                )
            media = await self._reader.decode(prompt.media)
            with translate_engine_errors(**names_of_media(prompt)):
                tokens = await engine.tokenize_with_media(
                    prompt.text, cuts=prompt.cuts, media=media, add_bos=prompt.add_bos
                )
        return RenderedChat(text=prompt.text, tokens=tokens)

    async def tokenize(self, text: str, *, parse_special: bool, add_bos: bool) -> list[int]:
        """Tokenizes a text; `parse_special` converts names of control tokens to these tokens."""
        if _is_longer(text, self._tokenize_bytes):
            raise errors.InvalidRequest(
                f"The text has {len(text)} characters; this server tokenizes at most "
                f"{self._tokenize_bytes} bytes (`tokenize_limit_bytes`).",
                param="text",
                code="string_above_max_length",
            )
        async with self._use_engine() as engine:
            return await engine.tokenize(text, parse_special=parse_special, add_bos=add_bos)

    async def detokenize(self, tokens: Sequence[int]) -> str:
        """Detokenizes tokens to text."""
        async with self._use_engine() as engine:
            return await engine.detokenize(list(tokens))

    async def complete(self, requests: Sequence[TextPrompt]) -> list[AdmittedGeneration]:
        """Submits text completions, and returns once the engine has assigned a slot to each of
        them, or to none. They use the model together: while it is unloaded, a later one would wait
        for the unload, and the unload for the earlier ones. Text that looks like a special token
        stays text. An empty prompt becomes the model's BOS token (EOS if it has none).
        """
        async with AsyncExitStack() as resources:
            with translate_engine_errors():
                engine = await resources.enter_async_context(self.handle.use())
            async with AsyncExitStack() as admitted:
                answers = [
                    await admitted.enter_async_context(await self._generate_text(engine, request))
                    for request in requests
                ]
                admitted.pop_all()
            share_resources(answers, resources.pop_all())
            return answers

    async def _generate_text(self, engine: EngineClient, request: TextPrompt) -> AdmittedGeneration:
        if request.prompt == "" and request.suffix is None:
            request = replace(request, prompt=await self._begin_tokens(engine))
        names = {"prompt": "prompt", "grammar": "grammar"}
        return await self._generate(engine, "text_completion", prompt_command(request), names)

    async def score_labels(self, scoring: LabelScoring) -> tuple[list[list[float]], Usage]:
        """Computes the probability of each label of each question, among the labels of the
        question. All questions share one prefill of the messages."""
        label_scoring.check_bytes(scoring, self._tokenize_bytes)
        async with self._use_engine() as engine:
            rendered = await self._renderer.render_scoring(engine, scoring)
            media = await self._reader.decode(rendered.media)
            names = label_scoring.field_names(scoring, rendered.media)
            with translate_engine_errors(**names):
                command = label_scoring.score_command(scoring, rendered, media)
                count = partial(self._count, "chat", command.priority)
                return await label_scoring.compute(engine, command, count)

    async def embed(self, inputs: Sequence[str | Sequence[int]]) -> Embedded:
        """Computes one normalised vector per input."""
        async with self._use_engine(inputs="input") as engine:
            return await engine.embed(
                [one if isinstance(one, str) else list(one) for one in inputs]
            )

    async def template(self) -> ChatTemplate:
        """Returns the chat template; loads the model if needed."""
        async with self._use_engine() as engine:
            return (await self._renderer.protocol(engine)).template

    async def info(self) -> ModelInfo:
        """Returns the metadata of the model; loads it if needed."""
        async with self._use_engine() as engine:
            return await engine.ready()

    async def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Counts the tokens of each text, without BOS and EOS."""
        async with self._use_engine() as engine:
            tokens = [engine.tokenize(text, parse_special=False) for text in texts]
            return [len(one) for one in await asyncio.gather(*tokens)]

    async def rank(self, query: str, documents: Sequence[str]) -> RankScores:
        """Computes each document's relevance to the query, from 0 to 1."""
        async with self._use_engine() as engine:
            return await engine.rank(query, list(documents))

    @asynccontextmanager
    async def _use_engine(self, **names: str) -> AsyncIterator[EngineClient]:
        """Yields the loaded engine and translates its errors; `names` maps the engine's fields to
        the client's."""
        with translate_engine_errors(**names):
            async with self.handle.use() as engine:
                yield engine

    async def _generate(
        self,
        engine: EngineClient,
        operation: str,
        command: Generate,
        names: Mapping[str, str | GrammarField],
        parser: Callable[[], MarkupParser | None] = lambda: None,
    ) -> AdmittedGeneration:
        """Submits a command to the engine, and returns once the engine has assigned a slot; `names`
        maps its fields to the client's."""
        with translate_engine_errors(**names):
            await engine.ready()
            generation = await engine.generate(command)
        count = partial(self._count, operation, command.priority)
        return AdmittedGeneration(engine, generation, count, parser, names)

    def _count(self, operation: str, priority: Priority, usage: Usage) -> None:
        self._observe(self.card.id, operation, priority, usage)
        if self.meter is not None:
            self.meter.count_answer(usage)

    async def _begin_tokens(self, engine: EngineClient) -> list[int]:
        """Returns the token that replaces an empty prompt; as a token it has no text in an echo."""
        with translate_engine_errors():
            info = await engine.ready()
            return await engine.tokenize(info.bos_token or info.eos_token, parse_special=True)


def _is_longer(text: str, limit_bytes: int) -> bool:
    """True if the text has more bytes in UTF-8."""
    return len(text) > limit_bytes or len(text.encode(errors="replace")) > limit_bytes
