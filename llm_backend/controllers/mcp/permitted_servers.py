"""Tools of the MCP servers that the settings permit; a server's label precedes their names."""

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

from llm_backend.backends.mcp_server import McpFailed, McpServer, McpTool
from llm_backend.json_types import JsonMapping

log = logging.getLogger(__name__)

FORWARDED = "x-llm-backend-mcp"
"""Header of requests to these servers. One of them may be this server itself, which then
offers only its own tools."""
_LABEL_LENGTH = 30  # leaves room for the tool's name
_NAME_LENGTH = 64  # of a function, at most upstreams
_LAST_PART = re.compile(r"/+$|/mcp/*$")
_UNNAMEABLE = re.compile(r"[^A-Za-z0-9-]+")


@dataclass(frozen=True, kw_only=True)
class PermittedTools:
    """`tools` by the names that clients call, and the reasons why servers have failed, by label."""

    tools: Mapping[str, McpTool]
    failures: Mapping[str, str]


class PermittedServers:
    """The servers at these URLs. Each listing and each call has a connection of its own."""

    def __init__(self, urls: Sequence[str], *, timeout_s: float, list_timeout_s: float) -> None:
        self._urls = _urls_by_label(urls)
        self._timeout_s = timeout_s
        self._list_timeout_s = list_timeout_s

    @property
    def labels(self) -> Collection[str]:
        """The servers' labels."""
        return self._urls.keys()

    async def list_tools(self, limit: int) -> PermittedTools:
        """Returns the tools of all servers that answer in time. A server whose tools would exceed
        what earlier servers left of `limit` is skipped."""
        tools: dict[str, McpTool] = {}
        failures: dict[str, str] = {}
        listed = await asyncio.gather(*map(self._list, self._urls))
        for label, one in zip(self._urls, listed, strict=True):
            if isinstance(one, McpFailed):
                failures[label] = str(one)
            elif len(tools) + len(one) > limit:
                failures[label] = (
                    f"It has {len(one)} tools, and {limit - len(tools)} more can be offered: "
                    "leave servers out of `mcp_servers`."
                )
            else:
                tools |= one
        return PermittedTools(tools=tools, failures=failures)

    def has(self, name: str) -> bool:
        """True if the name begins with the label of one of these servers."""
        label, separator, _ = name.partition("__")
        return separator != "" and label in self._urls

    async def call(self, name: str, arguments: JsonMapping) -> str:
        """Calls a tool by its name here, and returns its output. Raises `McpFailed`, and
        `ToolRefused` if the tool failed."""
        label = name.partition("__")[0]
        async with self._connect(label) as server:
            tool = _by_name(label, await server.tools()).get(name)
            if tool is None:
                raise McpFailed(f"The server has no tool `{name}`.", code=-32602)
            return await server.call(tool.name, arguments)

    async def _list(self, label: str) -> Mapping[str, McpTool] | McpFailed:
        try:
            async with asyncio.timeout(self._list_timeout_s), self._connect(label) as server:
                return _by_name(label, await server.tools())
        except TimeoutError:
            message = f"It did not list its tools within {self._list_timeout_s:g} seconds."
            failed = McpFailed(message, code=-32603)
        except McpFailed as error:
            failed = error
        log.warning("mcp_server_failed", extra={"server": label, "reason": str(failed)})
        return failed

    @asynccontextmanager
    async def _connect(self, label: str) -> AsyncIterator[McpServer]:
        url, headers = self._urls[label], {FORWARDED: "1"}
        try:
            async with McpServer(url, headers, timeout_s=self._timeout_s) as server:
                yield server
        except McpFailed as failed:  # clients and logs get no URL, which may have credentials
            reason = str(failed).replace(url, label)
            raise McpFailed(reason, code=failed.code, status=failed.status) from failed


def _urls_by_label(urls: Sequence[str]) -> Mapping[str, str]:
    """Returns the URLs by labels made of host, port and path, without credentials; equal ones are
    numbered."""
    labelled: dict[str, str] = {}
    for url in dict.fromkeys(url.rstrip("/") for url in urls):
        parts = urlsplit(url)
        host = parts.netloc.rpartition("@")[2].removeprefix("www.")
        public = _UNNAMEABLE.sub("_", host + _LAST_PART.sub("", parts.path))
        label = first = public.strip("_")[:_LABEL_LENGTH].strip("_")
        number = 1
        while label in labelled:
            number += 1
            label = f"{first}_{number}"
        labelled[label] = url
    return labelled


def _by_name(label: str, tools: Sequence[McpTool]) -> Mapping[str, McpTool]:
    """Returns tools by their names here. Raises `McpFailed` if two names would be equal."""
    by_name = {function_name(label, tool.name): tool for tool in tools}
    if len(by_name) < len(tools):
        message = f"Names of its tools are equal within {_NAME_LENGTH} letters, digits, - and _."
        raise McpFailed(message, code=-32603)
    return by_name


def function_name(label: str, name: str) -> str:
    """Returns the name of a server's tool here."""
    return f"{label}__{_UNNAMEABLE.sub('_', name)}"[:_NAME_LENGTH]
