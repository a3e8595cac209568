"""Label scoring: questions after one chat, and the probabilities of their answers (labels).

The chat is rendered once, with a mark in the place of a question. The text before the mark is the
prompt that all questions share, and the text after it ends every question.
"""

import math
import secrets
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from llm_backend.backends.base import Chat, Message, Usage
from llm_backend.backends.local.media import Content, MediaPart, UnmarkedPrompt
from llm_backend.backends.local.model_protocol import ModelProtocol, RenderedPrompt
from llm_backend.backends.local.task_priority import priority_of
from llm_backend.engine import EngineClient, Scoring
from llm_backend.engine.messages import MediaItem, MediaKind, Priority, Question, ScoreLabels
from llm_backend.errors import InvalidRequest

_NONCHARACTER = "\ufdd2"  # which Unicode excludes from text interchange


@dataclass(frozen=True, kw_only=True)
class LabelQuestion:
    """Question after a chat, and the texts that may answer it. `param` names it in the request,
    and `labels_param` its labels."""

    content: Content
    labels: Sequence[str]
    param: str
    labels_param: str


@dataclass(frozen=True, kw_only=True)
class LabelScoring:
    """Questions about the same messages; no label is a prefix of another one of its question."""

    messages: Sequence[Message]
    questions: Sequence[LabelQuestion]
    priority: Priority = Priority.INTERACTIVE

    @property
    def text_bytes(self) -> int:
        """Bytes of the questions' texts and labels."""
        return sum(
            len(text.encode(errors="replace"))
            for question in self.questions
            for text in (*_texts(question.content), *question.labels)
        )


@dataclass(frozen=True, kw_only=True)
class RenderedScoring:
    """Rendered chat and questions for the engine: the shared text, and the text of each question.
    Positions are relative to their own text."""

    shared: UnmarkedPrompt
    questions: Sequence[UnmarkedPrompt]
    add_bos: bool

    @property
    def media(self) -> Sequence[tuple[int, MediaPart]]:
        """Images and audio of all texts, in their order, with their positions."""
        return [one for text in (self.shared, *self.questions) for one in text.media]


def contents_of(scoring: LabelScoring) -> Iterator[Content]:
    """Yields the contents of the messages and of the questions."""
    yield from (message.get("content") for message in scoring.messages)
    yield from (question.content for question in scoring.questions)


def render(protocol: ModelProtocol, scoring: LabelScoring) -> RenderedScoring:
    """Renders the chat and its questions. Raises `InvalidRequest` for a model that always reasons
    before it answers."""
    mark = f"{_NONCHARACTER}{secrets.token_hex(16)}{_NONCHARACTER}"
    chat = Chat(
        messages=_with_mark(scoring.messages, mark),
        has_personality=False,
        reasoning_effort="none",
    )
    try:
        prompt = protocol.render(chat)
    except InvalidRequest as error:
        raise _always_reasons() if error.param == "reasoning_effort" else error from error
    if prompt.is_thinking:
        raise _always_reasons()
    shared, ending = _split(prompt, mark)
    questions = [
        _join(protocol.render_content(question.content), ending) for question in scoring.questions
    ]
    return RenderedScoring(shared=shared, questions=questions, add_bos=prompt.add_bos)


def score_command(
    scoring: LabelScoring, rendered: RenderedScoring, media: Sequence[MediaItem]
) -> ScoreLabels:
    """Builds the engine's command; `media` are the decoded media of `rendered`, in their order."""
    remaining = iter(media)

    def take(text: UnmarkedPrompt) -> list[MediaItem]:
        return [next(remaining) for _ in text.media]

    shared_media = take(rendered.shared)
    return ScoreLabels(
        id=uuid.uuid4().hex,
        prompt=rendered.shared.text,
        cuts=list(rendered.shared.cuts),
        media=shared_media,
        add_bos=rendered.add_bos,
        priority=priority_of(scoring.priority),
        questions=[
            Question(
                text=text.text, cuts=list(text.cuts), media=take(text), labels=list(question.labels)
            )
            for question, text in zip(scoring.questions, rendered.questions, strict=True)
        ],
    )


def normalize(logprobs: Sequence[float]) -> list[float]:
    """Returns the probabilities among the labels of one question, by their logprobs."""
    peak = max(logprobs)
    weights = [math.exp(logprob - peak) for logprob in logprobs]
    total = math.fsum(weights)
    return [weight / total for weight in weights]


async def compute(
    engine: EngineClient, command: ScoreLabels, count: Callable[[Usage], None]
) -> tuple[list[list[float]], Usage]:
    """Computes the probabilities of each question's labels. Once the engine has assigned a slot,
    `count` gets the usage, even if the request fails or is cancelled."""
    async with await engine.score_labels(command) as running:
        usage = _usage(running)
        try:
            scored = await running.answer()
            usage = _usage(running, scored.cached_tokens)
        finally:
            count(usage)
    return [normalize(logprobs) for logprobs in scored.logprobs], usage


def check_bytes(scoring: LabelScoring, limit: int) -> None:
    """Raises `InvalidRequest` for questions of more text than the engine tokenizes in one
    command."""
    if scoring.text_bytes > limit:
        raise InvalidRequest(
            f"The questions have {scoring.text_bytes} bytes of text together; this server "
            f"tokenizes at most {limit} (`tokenize_limit_bytes`).",
            param="questions",
            code="string_above_max_length",
        )


def _usage(scoring: Scoring, cached_tokens: int = 0) -> Usage:
    """Tokens and seconds of a scoring so far."""
    assigned = scoring.slot_assigned
    return Usage(
        prompt_tokens=assigned.prompt_tokens,
        cached_tokens=cached_tokens,
        image_tokens=assigned.tokens_of(MediaKind.IMAGE),
        cached_image_tokens=assigned.tokens_of(MediaKind.IMAGE, until=cached_tokens),
        queue_s=scoring.timing.queue_s,
        prompt_s=scoring.timing.prompt_s,
    )


def field_names(scoring: LabelScoring, media: Sequence[tuple[int, MediaPart]]) -> dict[str, str]:
    """Maps the engine's field names to the client's."""
    names = {"prompt": "input", "questions": "questions"}
    for index, question in enumerate(scoring.questions):
        names[f"questions[{index}]"] = question.param
        names[f"questions[{index}].labels"] = question.labels_param
    return names | {f"media[{index}]": file.param for index, (_, file) in enumerate(media)}


def _texts(content: Content) -> Iterator[str]:
    if isinstance(content, str):
        yield content
        return
    yield from (piece for piece in content or () if isinstance(piece, str))


def _always_reasons() -> InvalidRequest:
    return InvalidRequest(
        "This model always reasons before it answers, so its answer cannot be read from the next "
        "token: use another model.",
        param="model",
    )


def _with_mark(messages: Sequence[Message], mark: str) -> list[Message]:
    """Returns the messages with the mark at the end of the last one, if it is the user's; else in a
    message of its own."""
    if not messages or messages[-1]["role"] != "user":
        return [*messages, {"role": "user", "content": mark}]
    content = messages[-1]["content"] or ""
    marked = content + mark if isinstance(content, str) else [*content, mark]
    return [*messages[:-1], {**messages[-1], "content": marked}]


def _split(prompt: RenderedPrompt, mark: str) -> tuple[UnmarkedPrompt, UnmarkedPrompt]:
    """Returns the texts before and after the mark. Raises `InvalidRequest` if the template leaves
    it out, repeats it, or puts an image after it."""
    at = prompt.text.find(mark)
    end = at + len(mark)
    before = [one for one in prompt.media if one[0] <= at]
    if prompt.text.count(mark) != 1 or len(before) < len(prompt.media):
        raise InvalidRequest(
            "The model's chat template leaves out, repeats or moves the end of the last message.",
            param="model",
        )
    shared = UnmarkedPrompt(
        text=prompt.text[:at], cuts=[cut for cut in prompt.cuts if cut <= at], media=before
    )
    ending = UnmarkedPrompt(
        text=prompt.text[end:], cuts=[cut - end for cut in prompt.cuts if cut >= end]
    )
    return shared, ending


def _join(question: UnmarkedPrompt, ending: UnmarkedPrompt) -> UnmarkedPrompt:
    length = len(question.text)
    return replace(
        question,
        text=question.text + ending.text,
        cuts=[*question.cuts, *(length + cut for cut in ending.cuts)],
    )
