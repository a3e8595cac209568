"""Tools that this server runs itself while it answers a response: the seam where they plug in.

A client's functions are called by the client. A *server tool* (`file_search`, `mcp`) is run here:
the model is shown functions for it, its calls of them are executed, what came out is told as output
items with their events, and the model is asked again; see `rounds`.

To add one:

1. Write a `ToolKind`: which `type` of `tools` it is for, `open` that makes a `ServerTool` of one
   entry of a request's `tools`, and `messages`, how the model is told what its items say. The items
   are the only memory: the next round, and the next response that goes on from this one, read what
   the tool did from them and from nothing else.
2. Write the `ServerTool`: `functions` for the model, and `run`, which yields steps: an item has
   `Begun`, something about it is `Told` (an event of the document), it has `Ended`. Numbers,
   indices and ids in the events are added here, and so is the order; a tool cannot get them wrong
   as long as it begins and ends each item, one after the other.
3. Give the kind to `ServerTools` in `app/search.py`.

Whatever a tool cannot do is an `ApiError`: out of `open` it is the request's answer, out of `run`
it ends the response as `failed`. What went wrong with one call only (no such document, the tool
itself says no) belongs into the call's item, so that the model can read it and go on.
"""

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from llm_backend.errors import InvalidRequest

__all__ = [
    "CallBegan",
    "CallEnded",
    "CallProgress",
    "OpenTools",
    "Reader",
    "ServerCall",
    "ServerTool",
    "ServerTools",
    "Step",
    "ToolContext",
    "ToolKind",
]

Json = dict[str, Any]
Item = Mapping[str, Any]
Reader = Callable[[Item], Sequence[Json]]


@dataclass(frozen=True, kw_only=True)
class ServerCall:
    """A call to be run: the function's name as the model was shown it, arguments as JSON text."""

    name: str
    arguments: str


@dataclass(frozen=True, kw_only=True)
class CallBegan:
    """An output item has begun; `item` with its id and all that the document requires of it."""

    item: Json


@dataclass(frozen=True, kw_only=True)
class CallProgress:
    """An event about the item that has begun: its type, and fields beside the common ones."""

    kind: str
    fields: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class CallEnded:
    """The item as it is kept. With `awaits_client` the response ends after the calls of this round:
    it is the client's turn, to approve of something, say."""

    item: Json
    awaits_client: bool = False


Step = CallBegan | CallProgress | CallEnded


@dataclass(frozen=True, kw_only=True)
class ToolContext:
    """What a tool is opened for: its entry in `tools`, where that is (`tools[2]`, for errors), the
    whole body, and all items that the response goes on from, its own input at the end."""

    tool: Item
    where: str
    body: Item
    items: Sequence[Item]


class ServerTool(ABC):
    """One entry of a response's `tools`, opened for that response."""

    type: str
    """The entry's type."""

    functions: Sequence[Json] = ()
    """What the model is shown of it: function tools in the form that chats have. Their names must
    differ from those of all other tools."""

    def told_first(self) -> Sequence[Step]:
        """Steps that are told before the model is asked: what was found out by opening it."""
        return ()

    def due(self) -> Sequence[ServerCall]:
        """Calls to be run before the model is asked: those that the client has just approved of."""
        return ()

    @abstractmethod
    def run(self, call: ServerCall) -> AsyncGenerator[Step, None]:
        """Run a call of one of its functions. Closing the generator gives the call up."""

    def chosen(self, choice: Item) -> Collection[str]:
        """The names of its functions that this entry of `tool_choice` means; none if another tool
        is meant."""
        return self.names if choice["type"] == self.type else ()

    def annotations(self, text: str) -> Sequence[Json]:
        """The document's annotations of a message that has just been said."""
        return ()

    @property
    def readers(self) -> Mapping[str, Reader]:
        """By type, how items are told while it is open, where its kind alone cannot say it."""
        return {}

    @property
    def names(self) -> Sequence[str]:
        """The names of its functions."""
        return [function["function"]["name"] for function in self.functions]


class ToolKind(ABC):
    """A type of server tool."""

    type: str
    """The type in `tools` that it answers for."""

    items: Collection[str] = ()
    """The types of items that it makes or is sent, and alone can read."""

    may_be_repeated: bool = True
    """Whether a call may be run again by a server that takes up what another had begun."""

    @abstractmethod
    def open(self, asked: ToolContext) -> AbstractAsyncContextManager[ServerTool]:
        """The tool for one response, while that is being answered. The context may be left in
        another task than the one that entered it."""

    @abstractmethod
    def messages(self, item: Item) -> Sequence[Json]:
        """The chat messages that tell the model what an item says; none for one that is not for it.
        A call and its output are an assistant's message with `tool_calls` and a `tool` message."""


class OpenTools:
    """The server tools of one response."""

    def __init__(self, tools: Mapping[int, ServerTool], readers: Mapping[str, Reader]) -> None:
        self._tools = tools
        self.readers = readers
        self._by_name = _by_name(tools)

    def at(self, place: int) -> ServerTool | None:
        """The tool that `tools[place]` is, if this server runs it."""
        return self._tools.get(place)

    def runs(self, name: str) -> bool:
        """Whether a function of this name is one of theirs."""
        return name in self._by_name

    def told_first(self) -> list[Step]:
        """What all of them tell before the model is asked."""
        return [step for tool in self._tools.values() for step in tool.told_first()]

    def due(self) -> list[ServerCall]:
        """What is to be run before the model is asked."""
        return [call for tool in self._tools.values() for call in tool.due()]

    def run(self, call: ServerCall) -> AsyncGenerator[Step, None]:
        """Run a call of a function of theirs."""
        return self._by_name[call.name].run(call)

    def chosen(self, choice: Item) -> list[str]:
        """The names of the functions that an entry of `tool_choice` means."""
        return [name for tool in self._tools.values() for name in tool.chosen(choice)]

    def annotations(self, text: str) -> list[Json]:
        """All annotations of a message."""
        return [one for tool in self._tools.values() for one in tool.annotations(text)]


class ServerTools:
    """The kinds of tools that this server runs."""

    def __init__(self, kinds: Sequence[ToolKind] = ()) -> None:
        self._kinds = {kind.type: kind for kind in kinds}
        self._readers = {type: kind.messages for kind in kinds for type in kind.items}

    def may_be_repeated(self, body: Item) -> bool:
        """Whether a request may be answered again when nobody knows which calls have been run."""
        kinds = [self._kinds.get(tool["type"]) for tool in body.get("tools") or ()]
        return all(kind is None or kind.may_be_repeated for kind in kinds)

    @asynccontextmanager
    async def opened(self, body: Item, items: Sequence[Item]) -> AsyncIterator[OpenTools]:
        """The tools of a request that are run here, open for as long as it is answered."""
        async with AsyncExitStack() as stack:
            tools = {}
            for place, tool in enumerate(body.get("tools") or ()):
                if kind := self._kinds.get(tool["type"]):
                    asked = ToolContext(tool=tool, where=f"tools[{place}]", body=body, items=items)
                    tools[place] = await stack.enter_async_context(kind.open(asked))
            readers = dict(self._readers)
            for opened in tools.values():
                readers.update(opened.readers)
            yield OpenTools(tools, readers)


def _by_name(tools: Mapping[int, ServerTool]) -> dict[str, ServerTool]:
    by_name: dict[str, ServerTool] = {}
    for place, tool in tools.items():
        for name in tool.names:
            if name in by_name:
                raise InvalidRequest(
                    f"Two tools have a function `{name}`; every function has a name of its own.",
                    param=f"tools[{place}]",
                )
            by_name[name] = tool
    return by_name
