"""Server tools: the interface of tools that the server runs itself while it answers a response.

The client runs the calls of its own functions. A *server tool* (`file_search`,
`image_generation`, `mcp`) runs here. The model is shown functions for it, and the server runs the
model's calls of these functions. The results become output items with events, and the model gets
them in the next round; see `tool_loop`.

To add one:

1. Write a `ToolKind`: the `type` of `tools` that it handles, `open` that makes a `ServerTool` of
   one entry of a request's `tools`, and `messages` that translates its items to chat messages. The
   items are the only memory of the tool's work, for the next round and for the next response that
   continues this one.
2. Write the `ServerTool`: `functions` for the model, and `run`, which yields events: `CallBegan`
   for a new item, `CallProgress` for an event of the document about it, `CallEnded` for the
   finished item. The response's state adds sequence numbers, indices and ids to events. A tool only
   begins and ends its items, one after the other.
3. Register the kind with `ServerTools`, in `app/search.py`.

A failure of the tool is an `ApiError`: raised by `open`, it is the answer to the request; raised by
`run`, it ends the response as `failed`. A failure of a single call (a file that does not exist, a
refusal by the tool itself) belongs in the call's item, so that the model can read it and
continue."""

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from llm_backend.backends.base import Meter
from llm_backend.controllers.response_items.input_parts import Item
from llm_backend.errors import InvalidRequest
from llm_backend.json_types import JsonObject

Reader = Callable[[Item], Sequence[JsonObject]]


@dataclass(frozen=True, kw_only=True)
class ServerCall:
    """A call of a server tool: the function's name as shown to the model, arguments as JSON."""

    name: str
    arguments: str


@dataclass(frozen=True, kw_only=True)
class CallBegan:
    """A new output item: `item` has an id and all other fields that the document requires."""

    item: JsonObject


@dataclass(frozen=True, kw_only=True)
class CallProgress:
    """An event about the current item: its type, and fields beside the common ones."""

    kind: str
    fields: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class CallEnded:
    """The finished item as it is stored. With `awaits_client` the response ends after the calls of
    this round, for example because the client must approve a call."""

    item: JsonObject
    awaits_client: bool = False


ToolEvent = CallBegan | CallProgress | CallEnded
"""Event of a server tool, which the response's state translates to events of the document."""


@dataclass(frozen=True, kw_only=True)
class ToolContext:
    """Context in which a tool is opened. `tool` is its entry in `tools`, and `where` the path of
    the entry (`tools[2]`), for errors. `body` is the whole body. `items` are all items of the
    conversation; those of the request's input come last. `meter` is that of the request."""

    tool: Item
    where: str
    body: Item
    items: Sequence[Item]
    meter: Meter | None


class ServerTool(ABC):
    """One entry of a response's `tools`, opened for that response."""

    type: str
    """The entry's type."""

    functions: Sequence[JsonObject] = ()
    """Function tools shown to the model, in the form that chats have. Their names must differ from
    those of all other tools."""

    def initial_events(self) -> Sequence[ToolEvent]:
        """Returns the events before the first round, such as those of a list of tools."""
        return ()

    def initial_calls(self) -> Sequence[ServerCall]:
        """Returns the calls to run before the first round: MCP calls that the client has approved,
        or the search of `file_search` under the setting `file_search: always`."""
        return ()

    @abstractmethod
    def run(self, call: ServerCall) -> AsyncGenerator[ToolEvent, None]:
        """Runs a call of one of its functions. Closing the generator cancels the call."""

    def select_functions(self, choice: Item) -> Collection[str]:
        """Returns the names of its functions that this `tool_choice` selects; none if it selects
        another tool."""
        return self.names if choice["type"] == self.type else ()

    def annotations(self, text: str) -> Sequence[JsonObject]:
        """Returns the annotations (citations) of a finished message."""
        return ()

    @property
    def readers(self) -> Mapping[str, Reader]:
        """Translators of items to messages, by type, that need this tool and not only its kind."""
        return {}

    @property
    def names(self) -> Sequence[str]:
        """Names of its functions."""
        return [function["function"]["name"] for function in self.functions]


class ToolKind(ABC):
    """Factory of one type of server tool."""

    type: str
    """The type in `tools` that it handles."""

    items: Collection[str] = ()
    """The types of items that it alone outputs or translates."""

    may_be_repeated: bool = True
    """True if a call may run again after a crash."""

    @abstractmethod
    def open(self, context: ToolContext) -> AbstractAsyncContextManager[ServerTool]:
        """Opens the tool for one response. The task that leaves the context may differ from the one
        that entered it."""

    @abstractmethod
    def messages(self, item: Item) -> Sequence[JsonObject]:
        """Returns the chat messages of an item; none for an item that the model does not see.
        A call and its output are an assistant's message with `tool_calls` and a `tool` message."""


class OpenTools:
    """The server tools of one response."""

    def __init__(self, tools: Mapping[int, ServerTool], readers: Mapping[str, Reader]) -> None:
        self._tools = tools
        self.readers = readers
        self._by_name = _by_name(tools)

    def at(self, index: int) -> ServerTool | None:
        """Returns the server tool at `tools[index]`; None for a tool of the client."""
        return self._tools.get(index)

    def runs(self, name: str) -> bool:
        """True if a server tool has a function of this name."""
        return name in self._by_name

    def initial_events(self) -> list[ToolEvent]:
        """Returns all events before the first round."""
        return [event for tool in self._tools.values() for event in tool.initial_events()]

    def initial_calls(self) -> list[ServerCall]:
        """Returns all calls to run before the first round."""
        return [call for tool in self._tools.values() for call in tool.initial_calls()]

    def run(self, call: ServerCall) -> AsyncGenerator[ToolEvent, None]:
        """Runs a call of one of their functions."""
        return self._by_name[call.name].run(call)

    def select_functions(self, choice: Item) -> list[str]:
        """Returns the names of the functions that a `tool_choice` selects."""
        return [name for tool in self._tools.values() for name in tool.select_functions(choice)]

    def annotations(self, text: str) -> list[JsonObject]:
        """Returns all annotations of a message."""
        return [one for tool in self._tools.values() for one in tool.annotations(text)]


class ServerTools:
    """Registry of the server's tool kinds."""

    def __init__(self, kinds: Sequence[ToolKind] = ()) -> None:
        self._kinds = {kind.type: kind for kind in kinds}
        self._readers = {type: kind.messages for kind in kinds for type in kind.items}

    def may_be_repeated(self, body: Item) -> bool:
        """True if the request may be run again although some of its calls may have run already."""
        kinds = [self._kinds.get(tool["type"]) for tool in body.get("tools") or ()]
        return all(kind is None or kind.may_be_repeated for kind in kinds)

    @asynccontextmanager
    async def open(
        self, body: Item, items: Sequence[Item], meter: Meter | None
    ) -> AsyncIterator[OpenTools]:
        """Opens the server tools of a request until its answer ends; `meter` counts their usage."""
        async with AsyncExitStack() as stack:
            tools = {}
            for index, tool in enumerate(body.get("tools") or ()):
                if kind := self._kinds.get(tool["type"]):
                    context = ToolContext(
                        tool=tool, where=f"tools[{index}]", body=body, items=items, meter=meter
                    )
                    tools[index] = await stack.enter_async_context(kind.open(context))
            readers = dict(self._readers)
            for tool in tools.values():
                readers.update(tool.readers)
            yield OpenTools(tools, readers)


def _by_name(tools: Mapping[int, ServerTool]) -> dict[str, ServerTool]:
    by_name: dict[str, ServerTool] = {}
    for index, tool in tools.items():
        for name in tool.names:
            if name in by_name:
                raise InvalidRequest(
                    f"Two tools have a function `{name}`; every one must have a name of its own.",
                    param=f"tools[{index}]",
                )
            by_name[name] = tool
    return by_name
