"""`moderation` of chats and responses: what is asked and what is answered is judged, and told with
the answer; where the policy says `block`, what is flagged is not answered, or not said.
"""

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from llm_backend.backends.base import ChatDelta, Usage
from llm_backend.backends.local.local_model import LocalModel
from llm_backend.backends.registry import Registry
from llm_backend.controllers.chat.events import Transcript
from llm_backend.controllers.moderations.operations import OPENAIS_MODELS, moderation
from llm_backend.controllers.services import Services
from llm_backend.errors import ApiError, ModelNotFound, UnsupportedField

__all__ = ["FILTERED", "ModeratedAnswer", "WithheldStream", "moderation_of"]

Json = dict[str, Any]
Message = Mapping[str, Any]
Deltas = AsyncGenerator[ChatDelta, None]

FILTERED = "content_filter"  # why an answer ended that was withheld
_NOTHING_SAID = {
    "type": "error",
    "code": "no_output",
    "message": "There is no output: the input was flagged, and the policy blocks it.",
}
_WHERE = "moderation.model"


def moderation_of(
    services: Services, body: Mapping[str, Any], messages: Callable[[], Sequence[Message]]
) -> "ModeratedAnswer | None":
    """How the answer to these messages, as chats have them, is moderated; None where `moderation`
    is not asked for. Raises `UnsupportedField` where no model here can judge."""
    asked = body.get("moderation")
    if asked is None:
        return None
    judge = _judge(services.registry, asked["model"], services.settings.moderation_model)
    policy = asked.get("policy") or {}
    return ModeratedAnswer(
        judge=judge,
        messages=messages(),
        blocks_input=_blocks(policy.get("input")),
        blocks_output=_blocks(policy.get("output")),
    )


def _blocks(config: Mapping[str, Any] | None) -> bool:
    return config is not None and config["mode"] == "block"


def _judge(registry: Registry, name: str, configured: str | None) -> LocalModel:
    if name in OPENAIS_MODELS and not registry.knows(name):
        if configured is None:
            raise UnsupportedField(
                "No model is configured for moderation: set `moderation_model` "
                "(LLM_BACKEND_MODERATION_MODEL) to the name of a chat model that is served here, "
                "or leave `moderation` out.",
                param=_WHERE,
            )
        name = configured
    try:
        judge = registry.for_model(name)
    except ModelNotFound as error:
        raise UnsupportedField(error.message, param=_WHERE) from error
    if judge is None:
        raise UnsupportedField(
            f"`{name}` is an upstream's; answers of local models are judged by local ones.",
            param=_WHERE,
        )
    return judge


@dataclass(kw_only=True)
class ModeratedAnswer:
    """The moderation of one answer. What was asked is judged before it is answered where the policy
    blocks, and else behind the answer, so that nobody waits for it."""

    judge: LocalModel
    messages: Sequence[Message]
    blocks_input: bool
    blocks_output: bool
    _input: Sequence[Json] | ApiError | None = field(default=None, init=False)
    _output: Sequence[Json] | ApiError | None = field(default=None, init=False)
    _said: dict[int, list[str]] = field(default_factory=dict, init=False)  # by choice
    _is_withheld: bool = field(default=False, init=False)

    async def withholds(self) -> bool:
        """Whether nothing is to be answered. Raises `ApiError` where that cannot be judged."""
        if not self.blocks_input:
            return False
        self._input = await self._judged(_user_input(self.messages, sees=self.judge.sees))
        self._is_withheld = any(result["flagged"] for result in self._input)
        return self._is_withheld

    async def watched(self, deltas: Deltas) -> Deltas:
        """The deltas of an answer; where the policy blocks, held back until they are judged, and
        of a choice that is flagged only its end. Raises `ApiError` where it cannot be judged."""
        async with aclosing(deltas):
            if self.blocks_output:
                async for delta in self._passed(deltas):
                    yield delta
                return
            async for delta in deltas:
                self._hear(delta)
                yield delta

    async def told(self, *, results_in_lists: bool) -> Json:
        """The document's `moderation`, once all is said: of chats with lists of results."""
        if self._input is None:
            self._input = await self._tried(_user_input(self.messages, sees=self.judge.sees))
        if self._output is None and not self._is_withheld:
            self._output = await self._tried(self._texts())
        return {
            "input": self._side(self._input, results_in_lists),
            "output": dict(_NOTHING_SAID)
            if self._output is None
            else self._side(self._output, results_in_lists),
        }

    async def _passed(self, deltas: Deltas) -> Deltas:
        transcript = Transcript()
        async for delta in deltas:
            self._hear(delta)
            transcript.add(delta)
        self._output = await self._judged(self._texts())
        choices = zip(sorted(self._said), self._output, strict=False)  # of nothing there is one
        flagged = [choice for choice, result in choices if result["flagged"]]
        for delta in transcript.deltas():
            if delta.choice not in flagged:
                yield delta
        for choice in flagged:
            yield ChatDelta(choice=choice, finish_reason=FILTERED)

    def _hear(self, delta: ChatDelta) -> None:
        self._said.setdefault(delta.choice, []).append(delta.content + delta.refusal)

    def _texts(self) -> list[str]:
        return ["".join(self._said[choice]) for choice in sorted(self._said)] or [""]

    async def _tried(self, given: Sequence[Any]) -> Sequence[Json] | ApiError:
        """Scores only tell: what cannot be judged is told, too, and the answer is given."""
        try:
            return await self._judged(given)
        except ApiError as error:
            return error

    async def _judged(self, given: Sequence[Any]) -> Sequence[Json]:
        try:
            verdict = await moderation(self.judge, {"input": given}, inputs_limit=len(given))
        except ApiError as error:
            error.param = "moderation"
            raise
        head = {"type": "moderation_result", "model": verdict["model"]}
        return [{**head, **result} for result in verdict["results"]]

    def _side(self, found: Sequence[Json] | ApiError, results_in_lists: bool) -> Json:
        if isinstance(found, ApiError):
            return {"type": "error", "code": found.code, "message": found.message}
        if not results_in_lists:
            return found[0]
        name = self.judge.card.id
        return {"type": "moderation_results", "model": name, "results": list(found)}


class WithheldStream:
    """Stands for the answer to what was flagged: each choice ends before anything is said."""

    usage = Usage()

    async def __aenter__(self) -> "WithheldStream":
        return self

    async def __aexit__(self, *_: object) -> None:
        """Nothing is held."""

    async def chat(self, request: Any) -> Deltas:
        """The ends of the choices of this chat."""
        for choice in range(request.limits.choices):
            yield ChatDelta(choice=choice, finish_reason=FILTERED)


def _user_input(messages: Sequence[Message], *, sees: bool) -> Sequence[Any]:
    """What users say in these messages, as one thing to be judged; the pictures of it where they
    can be seen."""
    texts: list[str] = []
    pictures: list[Json] = []
    for message in messages:
        if message["role"] != "user":
            continue
        content = message.get("content") or ""
        for part in [{"type": "text", "text": content}] if isinstance(content, str) else content:
            if part["type"] == "text":
                texts.append(str(part["text"]))
            elif part["type"] == "image_url" and sees:
                pictures.append({"type": "image_url", "image_url": part["image_url"]})
    if not pictures:
        return ["\n".join(texts)]
    return [*({"type": "text", "text": text} for text in texts), *pictures]
