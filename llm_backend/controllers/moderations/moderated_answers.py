"""The field `moderation` of chats and responses: classifies input and output of an answer.

The results are part of the answer. With the policy `block`, a flagged input is not answered and a
flagged output is withheld.
"""

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from llm_backend.backends.base import ChatDelta, Meter, Usage
from llm_backend.backends.local.local_model import LocalModel
from llm_backend.backends.registry import Registry
from llm_backend.controllers.moderations.operations import OPENAIS_MODELS, moderate
from llm_backend.controllers.rendering.chat_events import ChatTranscript
from llm_backend.controllers.services import Services
from llm_backend.errors import ApiError, ModelNotFound, UnsupportedField
from llm_backend.json_types import JsonMapping, JsonObject

if TYPE_CHECKING:
    from llm_backend.contract import api_types as api

    Results = list[api.ModerationResultBody]
    ModerationSide = (
        api.ModerationResultBody | api.ChatCompletionModerationResults | api.ModerationErrorBody
    )

Message = JsonMapping
Deltas = AsyncGenerator[ChatDelta, None]

FILTERED = "content_filter"  # finish reason of a withheld answer
_NO_OUTPUT = {
    "type": "error",
    "code": "no_output",
    "message": "There is no output: the input was flagged, and the policy blocks it.",
}
_PARAM = "moderation.model"


def moderation_of(
    services: Services,
    body: JsonMapping,
    messages: Callable[[], Sequence[Message]],
    meter: Meter | None,
) -> "ModeratedAnswer | None":
    """Returns the moderation of the answer to these chat messages; None if the body has no
    `moderation`. The judge's usage is counted by `meter`. Raises `UnsupportedField` if no local
    model can judge."""
    config: api.ModerationParam | None = body.get("moderation")
    if config is None:
        return None
    judge = _find_judge(services.registry, config["model"], services.settings.moderation_model)
    policy = config.get("policy") or {}
    return ModeratedAnswer(
        judge=judge.with_meter(meter),
        messages=messages(),
        blocks_input=_blocks(policy.get("input")),
        blocks_output=_blocks(policy.get("output")),
    )


def _blocks(config: "api.ModerationConfigParam | None") -> bool:
    return config is not None and config["mode"] == "block"


def _find_judge(registry: Registry, name: str, configured: str | None) -> LocalModel:
    if name in OPENAIS_MODELS and not registry.is_own_name(name):
        if configured is None:
            raise UnsupportedField(
                "No model is configured for moderation: set `moderation_model` "
                "(LLM_BACKEND_MODERATION_MODEL) to the name of a chat model that is served here, "
                "or leave `moderation` out.",
                param=_PARAM,
            )
        name = configured
    try:
        judge = registry.for_model(name)
    except ModelNotFound as error:
        raise UnsupportedField(error.message, param=_PARAM, code=error.code) from error
    if judge is None:
        raise UnsupportedField(
            f"`{name}` is an upstream's; answers of local models are judged by local ones.",
            param=_PARAM,
        )
    return judge


@dataclass(kw_only=True)
class ModeratedAnswer:
    """Moderation of one answer. The input is judged before generation if the policy can block it;
    else after the answer, so as not to delay it."""

    judge: LocalModel
    messages: Sequence[Message]
    blocks_input: bool
    blocks_output: bool
    _input: "Results | ApiError | None" = field(default=None, init=False)
    _output: "Results | ApiError | None" = field(default=None, init=False)
    _texts_by_choice: dict[int, list[str]] = field(default_factory=dict, init=False)
    _is_withheld: bool = field(default=False, init=False)

    async def blocks_answer(self) -> bool:
        """Judges the input if the policy can block it; True if it is flagged. Raises `ApiError` if
        it cannot be judged."""
        if not self.blocks_input:
            return False
        self._input = await self._judge_content(_user_input(self.messages, self.judge))
        self._is_withheld = any(result["flagged"] for result in self._input)
        return self._is_withheld

    async def filter_deltas(self, deltas: Deltas) -> Deltas:
        """Passes the deltas of an answer on. If the policy can block the output, buffers them until
        it is judged, and yields only the end of a flagged choice. Raises `ApiError` if the output
        cannot be judged."""
        async with aclosing(deltas):
            if self.blocks_output:
                async for delta in self._withhold_flagged(deltas):
                    yield delta
                return
            async for delta in deltas:
                self._record(delta)
                yield delta

    async def report(self, *, results_in_lists: bool) -> JsonObject:
        """Judges what is not judged yet, and renders the answer's field `moderation`; chats have
        lists of results in it."""
        if self._input is None:
            self._input = await self._try_judging(_user_input(self.messages, self.judge))
        if self._output is None and not self._is_withheld:
            self._output = await self._try_judging(self._texts())
        return {
            "input": self._render_side(self._input, results_in_lists),
            "output": dict(_NO_OUTPUT)
            if self._output is None
            else self._render_side(self._output, results_in_lists),
        }

    async def _withhold_flagged(self, deltas: Deltas) -> Deltas:
        transcript = ChatTranscript()
        async for delta in deltas:
            self._record(delta)
            transcript.add(delta)
        self._output = await self._judge_content(self._texts())
        # An empty output has one result and no choice, so the lengths may differ.
        choices = zip(sorted(self._texts_by_choice), self._output, strict=False)
        flagged = [choice for choice, result in choices if result["flagged"]]
        for delta in transcript.deltas():
            if delta.choice not in flagged:
                yield delta
        for choice in flagged:
            yield ChatDelta(choice=choice, finish_reason=FILTERED)

    def _record(self, delta: ChatDelta) -> None:
        self._texts_by_choice.setdefault(delta.choice, []).append(delta.content + delta.refusal)

    def _texts(self) -> list[str]:
        return ["".join(texts) for _, texts in sorted(self._texts_by_choice.items())] or [""]

    async def _try_judging(self, inputs: list[Any]) -> "Results | ApiError":
        """Judges without blocking: an error is reported as the result, and the answer is sent."""
        try:
            return await self._judge_content(inputs)
        except ApiError as error:
            return error

    async def _judge_content(self, inputs: list[Any]) -> "Results":
        try:
            verdict = await moderate(self.judge, {"input": inputs}, inputs_limit=len(inputs))
        except ApiError as error:
            error.param = "moderation"
            raise
        head = {"type": "moderation_result", "model": verdict["model"]}
        return cast("Results", [{**head, **result} for result in verdict["results"]])

    def _render_side(
        self, results: "Results | ApiError", results_in_lists: bool
    ) -> "ModerationSide":
        if isinstance(results, ApiError):
            return {"type": "error", "code": results.code, "message": results.message}
        if not results_in_lists:
            return results[0]
        name = self.judge.card.id
        return {"type": "moderation_results", "model": name, "results": list(results)}


class WithheldStream:
    """Replaces the answer to a flagged input: each choice ends without content."""

    usage = Usage()

    async def __aenter__(self) -> "WithheldStream":
        return self

    async def __aexit__(self, *_: object) -> None:
        """Has nothing to release."""

    async def chat_deltas(self, request: Any) -> Deltas:
        """Yields the end of each choice of this chat."""
        for choice in range(request.limits.choices):
            yield ChatDelta(choice=choice, finish_reason=FILTERED)


def _user_input(messages: Sequence[Message], judge: LocalModel) -> list[Any]:
    """Returns the user messages as one moderation input, with images if the judge sees them."""
    texts: list[str] = []
    images: list[JsonObject] = []
    for message in messages:
        if message["role"] != "user":
            continue
        content = message.get("content") or ""
        for part in [{"type": "text", "text": content}] if isinstance(content, str) else content:
            if part["type"] == "text":
                texts.append(str(part["text"]))
            elif part["type"] == "image_url" and judge.accepts_images:
                images.append({"type": "image_url", "image_url": part["image_url"]})
    if not images:
        return ["\n".join(texts)]
    return [*({"type": "text", "text": text} for text in texts), *images]
