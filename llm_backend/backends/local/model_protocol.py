"""Model protocol: the chat template, markup and control tokens of one model. It renders prompts and
creates the parsers of answers."""

import asyncio
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace

from llm_backend.backends.base import Chat, Grammar, JsonContent
from llm_backend.backends.local.chat_formats import CHAT_FORMATS, ChatFormat
from llm_backend.backends.local.chat_template import ChatTemplate
from llm_backend.backends.local.control_tokens import ControlTokenGuard
from llm_backend.backends.local.grammar_field import GrammarField
from llm_backend.backends.local.markup import Markup, MarkupParser, markup_of
from llm_backend.backends.local.markup.family import ArgumentStyle
from llm_backend.backends.local.markup.grammar import Function, calls_grammar, content_grammar
from llm_backend.backends.local.markup.parameters import (
    check_strict,
    resolve_references,
    without_grammar_pattern,
)
from llm_backend.backends.local.media import Content, Marks, MediaPart, UnmarkedPrompt
from llm_backend.backends.schemas import AnswerSchema, Path, SchemaBudget, lower_schema
from llm_backend.contract.validation_messages import field_name
from llm_backend.engine import EngineClient
from llm_backend.errors import InvalidRequest, UnsupportedField
from llm_backend.json_types import JsonMapping

THINKING_VARIABLES = frozenset({"enable_thinking", "thinking"})
"""Variables by which chat templates switch reasoning on and off."""

_EFFORTS = {"minimal": "low", "xhigh": "high", "max": "high"}  # models know only three levels


@dataclass(frozen=True, kw_only=True)
class RenderedPrompt:
    """Rendered chat for the engine, and the format of its answers. `cuts` are positions in the text
    that no token spans, and `media` come with their positions. `visible_tokens` are the control
    tokens that the engine must output as text, and `hidden` their texts, which the parser removes.
    `is_plain`: answers have no markup. `grammar_field` is the request's field from which the
    grammar was made."""

    text: str
    cuts: Sequence[int]
    media: Sequence[tuple[int, MediaPart]]
    add_bos: bool
    grammar: str | None
    grammar_field: GrammarField
    visible_tokens: Sequence[int]
    is_plain: bool
    is_thinking: bool
    markup: Markup
    tools: Mapping[str, JsonMapping]
    hidden: frozenset[str]

    def parser(self) -> MarkupParser | None:
        """Creates the parser of one answer; None if answers are plain text."""
        if self.is_plain:
            return None
        return MarkupParser(
            self.markup, self.tools, is_thinking=self.is_thinking, hidden=self.hidden
        )


class ModelProtocol:
    """Template and markup of one model. `tool_template` renders chats with tools. `tokens` maps
    the marks that are single tokens to their ids. `controls` are all control tokens, which the
    engine outputs only on request.
    """

    def __init__(
        self,
        template: ChatTemplate,
        tool_template: ChatTemplate,
        markup: Markup,
        tokens: Mapping[str, int],
        controls: frozenset[str],
    ) -> None:
        self._template = template
        self._tool_template = tool_template
        # llama.cpp has Harmony's headers not among its control tokens, but they name roles.
        self._guard = ControlTokenGuard([*controls, *(tokens if markup.messages else ())])
        self._markup = markup
        self._tokens = tokens
        self._controls = controls

    @classmethod
    async def create(
        cls, engine: EngineClient, tool_format: str | None, chat_format: ChatFormat | None = None
    ) -> "ModelProtocol":
        """Creates the protocol of an engine's model. `chat_format` replaces its template;
        `tool_format` names the format of calls (None: detected from the template). Raises the
        engine's errors."""
        info = await engine.ready()
        sources = tuple(
            map(_source_of, (info.chat_template, info.tool_template or info.chat_template))
        )
        if chat_format is not None:
            sources = (chat_format.source, chat_format.source)
        compiled = {
            source: ChatTemplate(source, bos_token=info.bos_token, eos_token=info.eos_token)
            for source in set(sources)
        }
        template, tool_template = (compiled[source] for source in sources)
        markup = markup_of(tool_template.source, tool_format)
        marks = list(dict.fromkeys(markup.markers))
        split = await asyncio.gather(*(engine.tokenize(mark) for mark in marks))
        tokens = {mark: ids[0] for mark, ids in zip(marks, split, strict=True) if len(ids) == 1}
        return cls(template, tool_template, markup, tokens, frozenset(info.control_tokens))

    @property
    def template(self) -> ChatTemplate:
        """Template of chats without tools."""
        return self._template

    def compiles_schemas(self, chat: Chat) -> bool:
        """True if `render` compiles the parameters of functions, which may take long."""
        return bool(chat.tools) and (
            chat.must_call
            or chat.callable_names is not None
            or isinstance(chat.grammar, JsonContent)
            or any(tool["function"].get("strict") for tool in chat.tools)
        )

    def render(self, chat: Chat) -> RenderedPrompt:
        """Renders a chat and compiles its grammar. Raises `InvalidRequest`."""
        tools = {
            tool["function"]["name"]: resolve_references(tool["function"].get("parameters") or {})
            for tool in chat.tools
        }
        template = self._tool_template if tools else self._template
        marks_of_media = Marks(chat.messages)
        escaped = template.render(
            marks_of_media.messages,
            [_template_tool(tool) for tool in chat.tools],
            {**self._effort_variables(chat, template), **chat.template_kwargs},
            self._guard,
        )
        unmarked = marks_of_media.remove_from(*self._guard.unescape(escaped))
        text = unmarked.text + chat.opening
        markup = self._markup
        is_thinking = markup.opens_reasoning(text)
        grammar, grammar_field = self._grammar(chat, is_thinking=is_thinking)
        if grammar is not None:
            markup = markup.without_variants(is_leading=chat.grammar is not None)
        marks = markup.markers_for(bool(tools))
        return RenderedPrompt(
            text=text,
            cuts=unmarked.cuts,
            media=unmarked.media,
            add_bos=not template.writes_bos(text),
            grammar=grammar,
            grammar_field=grammar_field,
            visible_tokens=[self._tokens[mark] for mark in marks if mark in self._controls],
            is_plain=not tools and not markup.has_reasoning,
            is_thinking=is_thinking,
            markup=markup,
            tools=tools,
            hidden=self._controls.intersection(marks),
        )

    def render_content(self, content: Content) -> UnmarkedPrompt:
        """Renders text with images and audio as it stands in a message."""
        marks = Marks([{"role": "user", "content": content}])
        (message,) = marks.messages
        return marks.remove_from(*self._guard.unescape(self._guard.escape(message["content"])))

    def _grammar(self, chat: Chat, *, is_thinking: bool) -> tuple[str | None, GrammarField]:
        """Returns the grammar of the calls or content requested (None: unconstrained), and the
        field from which it was made. A client's own grammar constrains the whole output."""
        if chat.grammar is None:
            return self._calls_grammar(chat, None, GrammarField(name="tools"), is_thinking)
        field = GrammarField(name=chat.grammar.field)
        if isinstance(chat.grammar, Grammar):
            return _own_grammar(chat.grammar, is_thinking=is_thinking), field
        field = replace(field, content=chat.grammar.lowered)
        content = chat.grammar.schema
        if not chat.tools:
            grammar = content_grammar(self._markup, content, self._tokens, is_thinking=is_thinking)
            return grammar, field
        return self._calls_grammar(chat, content, field, is_thinking)

    def _calls_grammar(
        self,
        chat: Chat,
        content: JsonMapping | None,
        field: GrammarField,
        is_thinking: bool,
    ) -> tuple[str | None, GrammarField]:
        if chat.grammar is not None and self._markup.is_bare and not chat.must_call:
            raise UnsupportedField(
                "This model's calls cannot be told from JSON content: give `tools` or a "
                "`response_format`, not both.",
                param=chat.grammar.field,
            )
        if not self.compiles_schemas(chat):
            return None, field
        budget = copy(chat.schema_budget)  # a chat may be rendered again
        functions = [
            self._function(chat, tool["function"], index, budget)
            for index, tool in enumerate(chat.tools)
            if chat.callable_names is None or tool["function"]["name"] in chat.callable_names
        ]
        field = replace(field, functions=functions)
        grammar = calls_grammar(
            self._markup,
            functions,
            self._tokens,
            is_required=chat.must_call,
            is_parallel=chat.parallel_tool_calls,
            is_thinking=is_thinking,
            content=content,
        )
        return grammar, field

    def _function(
        self, chat: Chat, function: JsonMapping, index: int, budget: SchemaBudget
    ) -> Function:
        path: Path = ("tools", index, "function", "parameters")
        assert self._markup.calls is not None, "every family has calls"
        parameters, is_strict = function.get("parameters"), bool(function.get("strict"))
        name, param = function["name"], str(field_name(path))
        if not parameters:
            return Function(name=name, param=param, parameters=parameters, is_strict=is_strict)
        lowered = chat.lowered_calls.get(name) if is_strict else None
        if lowered is None:
            budget.spend(parameters, path)
            AnswerSchema(parameters, path)  # raises for an invalid schema
        arguments = self._markup.calls.notation.arguments
        if is_strict:
            check_strict(resolve_references(parameters), arguments, param)
        if lowered is None:
            lowered = lower_schema(parameters, path, is_lenient=not is_strict, budget=budget)
        # A grammar of JSON resolves references itself, with one rule per definition.
        if arguments is not ArgumentStyle.JSON:
            lowered = lowered.with_root(resolve_references(lowered.schema))
        return Function(
            name=name,
            param=param,
            parameters=lowered.schema,
            is_strict=is_strict,
            lowered=lowered,
        )

    def _effort_variables(self, chat: Chat, template: ChatTemplate) -> JsonMapping:
        effort = chat.reasoning_effort
        if effort is None or (effort == "none" and not self._markup.has_reasoning):
            return {}
        if not self._markup.has_reasoning:
            if not chat.must_take_effort:
                return {}
            raise UnsupportedField(
                "This model does not reason: `reasoning_effort` must be `none` or absent.",
                param="reasoning_effort",
            )
        can_be_off = template.variables & THINKING_VARIABLES
        if effort == "none" and not can_be_off:
            if not chat.must_take_effort:
                return {}
            raise InvalidRequest(
                "This model always reasons: `reasoning_effort` cannot be `none`.",
                param="reasoning_effort",
            )
        is_on = effort != "none"
        level = {"reasoning_effort": _EFFORTS.get(effort, effort)} if is_on else {}
        return {**dict.fromkeys(THINKING_VARIABLES, is_on), **level}


class ProtocolCache:
    """Cache of the `ModelProtocol` of a model's current engine. `tool_format` and `chat_format`
    are as in `ModelProtocol.create`."""

    def __init__(self, tool_format: str | None, chat_format: ChatFormat | None) -> None:
        self._tool_format = tool_format
        self._chat_format = chat_format
        self._lock = asyncio.Lock()
        self._engine: EngineClient | None = None
        self._protocol: ModelProtocol | None = None

    async def get(self, engine: EngineClient) -> ModelProtocol:
        """Returns the engine's protocol, created once for concurrent requests. Raises as
        `ModelProtocol.create`."""
        async with self._lock:
            if self._protocol is None or self._engine is not engine:
                self._protocol = await ModelProtocol.create(
                    engine, self._tool_format, self._chat_format
                )
                self._engine = engine
            return self._protocol


def _source_of(template: str | None) -> str | None:
    """Returns the Jinja source of a model file's template. The file may name a chat format instead
    of a template."""
    named = CHAT_FORMATS.get((template or "").strip())
    return template if named is None else named.source


def _own_grammar(grammar: Grammar, *, is_thinking: bool) -> str:
    if is_thinking:
        raise InvalidRequest(
            "This model's answers begin with reasoning, which the grammar would constrain, too: "
            "send `reasoning_effort: none`, or use `response_format`.",
            param=grammar.field,
        )
    return grammar.text


def _template_tool(tool: JsonMapping) -> JsonMapping:
    """Returns a tool for the template, without `strict`, which concerns only the grammar."""
    function = {name: value for name, value in tool["function"].items() if name != "strict"}
    if function.get("parameters") is not None:
        function["parameters"] = without_grammar_pattern(function["parameters"])
    return {**tool, "function": function}
