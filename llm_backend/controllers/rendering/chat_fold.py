"""Fold of streamed chat completion chunks into one completion (pure)."""

from collections.abc import Iterable, Mapping
from typing import Any

from llm_backend.json_types import JsonObject

_DROPPED = frozenset({"choices", "object", "obfuscation"})
_FROM_FIRST_CHUNK = frozenset({"id", "created", "model"})


def fold(chunks: Iterable[Mapping[str, Any]]) -> JsonObject:
    """Returns the `chat.completion` of these `chat.completion.chunk`s."""
    chat_fold = ChatFold()
    for chunk in chunks:
        chat_fold.add(chunk)
    return chat_fold.completion()


class ChatFold:
    """Folds chunks one by one; `completion` may be called at any time.

    Text of deltas is joined, lists are extended, tool calls are merged by index, and every other
    field keeps its last value that is not null. Values of the wrong type are ignored: a
    fold never fails. Chunks are not modified.
    """

    def __init__(self) -> None:
        self._fields: JsonObject = {}
        self._choices: dict[int, _ChoiceFold] = {}
        self.fast_path: TextFastPath | None = None  # fast path for chunks like the latest one

    def add(self, chunk: Mapping[str, Any]) -> None:
        """Adds the next chunk."""
        if self.fast_path is None or not self.fast_path.try_append(chunk):
            self._add(chunk)
            self.fast_path = self._fast_path_after(chunk)

    def _add(self, chunk: Mapping[str, Any]) -> None:
        for name, value in chunk.items():
            if name in _DROPPED or (name in _FROM_FIRST_CHUNK and self._fields.get(name)):
                continue
            _set_last(self._fields, name, value)
        for choice in _mappings(chunk.get("choices")):
            index = _index_of(choice)
            if index is not None:
                self._choices.setdefault(index, _ChoiceFold(index)).add(choice)

    def _fast_path_after(self, chunk: Mapping[str, Any]) -> "TextFastPath | None":
        """Returns the fast path for chunks like this one, if it only has text of one choice."""
        choices = _mappings(chunk.get("choices"))
        choice = choices[0] if len(choices) == 1 else {}
        index = _index_of(choice) if _is_text(choice) else None
        if index is None:
            return None
        return TextFastPath(chunk, choice, self._choices[index].content)

    @property
    def is_finished(self) -> bool:
        """True if every choice has a finish reason."""
        return bool(self._choices) and all(
            choice.finish_reason is not None for choice in self._choices.values()
        )

    def completion(self) -> JsonObject:
        """Returns the completion so far; an interrupted choice has a null `finish_reason`."""
        choices = [self._choices[index].to_choice() for index in sorted(self._choices)]
        return {"object": "chat.completion", **self._fields, "choices": choices}


class TextFastPath:
    """Fast path for chunks that differ from a given one only in the text of their delta. Nearly
    all chunks of a stream are such; the fast path costs a tenth of the general one."""

    def __init__(
        self, chunk: Mapping[str, Any], choice: Mapping[str, Any], texts: list[str]
    ) -> None:
        self._chunk = {**chunk, "choices": None}
        self._choice = {**choice, "delta": None}
        self.texts = texts

    def try_append(self, chunk: Mapping[str, Any]) -> bool:
        """Appends the chunk's text and returns True if the chunk differs from the given one only in
        its text."""
        choices = chunk.get("choices")
        if type(choices) is not list or len(choices) != 1 or not _is_text(choices[0]):
            return False
        is_alike = {**chunk, "choices": None} == self._chunk
        if not is_alike or {**choices[0], "delta": None} != self._choice:
            return False
        self.texts.append(choices[0]["delta"]["content"])
        return True


class _ChoiceFold:
    """One choice with its message under construction."""

    def __init__(self, index: int) -> None:
        self._index = index
        self._message = _JoinedFields()
        self._function_call: _JoinedFields | None = None
        self._tool_calls: dict[int, _ToolCallFold] = {}
        self._logprobs: _JoinedFields | None = None
        self._others: JsonObject = {}
        self.finish_reason: str | None = None

    def add(self, choice: Mapping[str, Any]) -> None:
        for name, value in choice.items():
            if name == "delta":
                self._add_delta(value)
            elif name == "finish_reason":
                self.finish_reason = value if isinstance(value, str) else self.finish_reason
            elif name == "logprobs" and isinstance(value, Mapping):
                self._logprobs = self._logprobs or _JoinedFields()
                self._logprobs.add_all(value)
            elif name not in {"index", "logprobs"}:
                _set_last(self._others, name, value)

    @property
    def content(self) -> list[str]:
        """Pieces of the message's text; at least one."""
        return self._message.texts("content")

    def to_choice(self) -> JsonObject:
        return {
            "index": self._index,
            "message": self._message_object(),
            "logprobs": self._logprobs and self._logprobs.value(),
            "finish_reason": self.finish_reason,
            **self._others,
        }

    def _add_delta(self, delta: object) -> None:
        if not isinstance(delta, Mapping):
            return
        for name, value in delta.items():
            if name == "tool_calls":
                for call in _mappings(value):
                    self._tool_call(call).add(call)
            elif name == "function_call" and isinstance(value, Mapping):
                self._function_call = self._function_call or _JoinedFields()
                self._function_call.add_all(value)
            elif name != "function_call":
                self._message.add(name, value)

    def _tool_call(self, call: Mapping[str, Any]) -> "_ToolCallFold":
        """Returns the call that a fragment continues: by index, else by id, else the last one."""
        index = call.get("index")
        if type(index) is not int:
            last = max(self._tool_calls, default=-1)
            same = (
                at for at, call_fold in self._tool_calls.items() if call_fold.id == call.get("id")
            )
            index = next(same, last + 1) if call.get("id") else max(last, 0)
        return self._tool_calls.setdefault(index, _ToolCallFold())

    def _message_object(self) -> JsonObject:
        message = {"role": "assistant", "content": None, "refusal": None, **self._message.value()}
        if self._tool_calls:
            calls = [self._tool_calls[index].value() for index in sorted(self._tool_calls)]
            message["tool_calls"] = calls
        if self._function_call is not None:
            message["function_call"] = self._function_call.value()
        has_other_content = self._tool_calls or self._function_call or message["refusal"]
        if message["content"] == "" and has_other_content:
            # Many servers begin a stream with an empty text.
            message["content"] = None
        return message


class _ToolCallFold:
    """One tool call: id, type, and the joined fragments of its function or custom tool."""

    def __init__(self) -> None:
        self.id: str | None = None
        self._fields: JsonObject = {}
        self._parts: dict[str, _JoinedFields] = {}

    def add(self, call: Mapping[str, Any]) -> None:
        self.id = self.id or call.get("id")
        for name, value in call.items():
            if isinstance(value, Mapping):
                self._parts.setdefault(name, _JoinedFields()).add_all(value)
            elif name != "index" and not self._fields.get(name):
                _set_last(self._fields, name, value)

    def value(self) -> JsonObject:
        kind = "custom" if "custom" in self._parts else "function"
        parts = {name: part.value() for name, part in self._parts.items()}
        return {"id": self.id, "type": kind, **self._fields, **parts}


class _JoinedFields:
    """Named values: texts are joined, lists extended, in `depth` levels of nested objects too."""

    _WHOLE = frozenset({"role", "id", "type"})

    def __init__(self, depth: int = 1) -> None:
        self._depth = depth
        self._values: JsonObject = {}
        self._texts: dict[str, list[str]] = {}

    def texts(self, name: str) -> list[str]:
        """Returns the pieces of a text. Raises `KeyError` if it has none."""
        return self._texts[name]

    def add_all(self, values: Mapping[str, Any]) -> None:
        for name, value in values.items():
            self.add(name, value)

    def add(self, name: str, value: object) -> None:
        previous = self._values.get(name)
        if isinstance(value, str) and name not in self._WHOLE:
            self._values.setdefault(name, None)  # keeps the order of the fields
            texts = self._texts.setdefault(name, [])
            if name != "name" or texts != [value]:  # some servers repeat a call's name
                texts.append(value)
        elif isinstance(value, list):
            if not isinstance(previous, list):
                self._values[name] = previous = []
            previous.extend(value)
        elif isinstance(value, Mapping) and self._depth > 0:
            part = (
                previous if isinstance(previous, _JoinedFields) else _JoinedFields(self._depth - 1)
            )
            part.add_all(value)
            self._values[name] = part
        else:
            _set_last(self._values, name, value)

    def value(self) -> JsonObject:
        plain = {
            name: value.value() if isinstance(value, _JoinedFields) else value
            for name, value in self._values.items()
        }
        return plain | {name: "".join(texts) for name, texts in self._texts.items()}


def _index_of(choice: Mapping[str, Any]) -> int | None:
    """Returns the index of a choice, 0 if it has none; None if it is not an integer."""
    index = choice.get("index", 0)
    return index if type(index) is int else None


def _is_text(choice: object) -> bool:
    """True if a choice of a chunk has text and nothing else."""
    if type(choice) is not dict or choice.get("logprobs") is not None:
        return False
    delta = choice.get("delta")
    return type(delta) is dict and len(delta) == 1 and type(delta.get("content")) is str


def _set_last(fields: JsonObject, name: str, value: object) -> None:
    """Sets a field, unless null would replace a value."""
    if value is not None or name not in fields:
        fields[name] = value


def _mappings(value: object) -> list[Mapping[str, Any]]:
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, list) else []
