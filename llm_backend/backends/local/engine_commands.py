"""Engine commands: converts chats and text prompts to `Generate` messages."""

import uuid
from collections.abc import Sequence
from typing import Any

from llm_backend.backends.base import Chat, GenerationLimits, TextPrompt
from llm_backend.backends.local.model_protocol import RenderedPrompt
from llm_backend.backends.local.task_priority import priority_of
from llm_backend.engine.messages import Generate, MediaItem, Priority, Sampling


def chat_command(
    request: Chat, prompt: RenderedPrompt, media: Sequence[MediaItem], format_stops: Sequence[str]
) -> Generate:
    """Builds the command of a chat that was rendered as `prompt` with `media`; `format_stops` are
    stop strings besides those of the request."""
    return _generate_command(
        request.limits,
        request.sampling,
        prompt=prompt.text,
        cuts=list(prompt.cuts),
        media=list(media),
        add_bos=prompt.add_bos,
        is_chat=True,
        stop=[*request.limits.stop, *format_stops],
        priority=priority_of(request.priority),
        prediction=request.prediction,
        grammar=prompt.grammar,
        visible_tokens=list(prompt.visible_tokens),
    )


def prompt_command(request: TextPrompt) -> Generate:
    """Builds the command of a text completion. Text that looks like a special token stays text."""
    return _generate_command(
        request.limits,
        request.sampling,
        prompt=request.prompt if isinstance(request.prompt, str) else list(request.prompt),
        parse_special=False,
        stop=list(request.limits.stop),
        priority=priority_of(Priority.INTERACTIVE),
        echo=request.echo,
        suffix=request.suffix,
        grammar=request.grammar.text if request.grammar else None,
    )


def _generate_command(
    limits: GenerationLimits,
    sampling: Sampling,
    **fields: Any,  # the command's other fields, by its own names
) -> Generate:
    return Generate(
        id=uuid.uuid4().hex,
        n=limits.choices,
        best_of=limits.best_of,
        max_tokens=limits.max_tokens,
        min_tokens=limits.min_tokens,
        stop_token_ids=list(limits.stop_token_ids),
        ignore_eos=limits.ignore_eos,
        sampling=sampling,
        **fields,
    )
