"""Settings of responses: prompts, MCP servers, background and WebSocket limits."""

from collections.abc import Mapping
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from llm_backend.settings.kinds import Names


class PromptMessage(BaseModel):
    """One message of a prompt; `{{name}}` in its text is a variable."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    role: Literal["developer", "system", "user", "assistant"]
    content: str


class PromptSettings(BaseModel):
    """Messages that a response's `prompt` names by their id."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: str = Field("1", description="Version that `prompt.version` may name.")
    messages: tuple[PromptMessage, ...] = Field(
        min_length=1,
        description="Messages (`role`, `content`) before the input; `{{name}}` is a variable.",
    )


class ResponsesSettings(BaseModel):
    """Prompts and tools of responses, and limits of concurrent ones."""

    prompts: Mapping[str, PromptSettings] = Field(
        {},
        description="Prompts by the ids in a response's `prompt`: see `One prompt`; JSON in the "
        "environment.",
    )
    mcp_servers: Names = Field(
        (),
        description="URLs of the MCP servers that responses with `mcp` tools may use, and whose "
        "tools `/mcp` and the chat page offer; others are refused.",
    )
    mcp_timeout_s: float = Field(
        60, gt=0, description="Timeout in seconds for an answer of an MCP server."
    )
    mcp_list_timeout_s: float = Field(
        5,
        gt=0,
        description="Timeout in seconds for listing the tools of one MCP server, for `/mcp` and "
        "the chat page; servers that take longer are named as missing.",
    )
    tool_calls_limit: int = Field(
        32,
        ge=0,
        description="Maximum number of tool calls that the server runs in one response; a "
        "request's `max_tool_calls` may lower it.",
    )
    background_limit: int = Field(
        8, ge=1, description="Background responses that one process computes concurrently."
    )
    background_waiting_limit: int = Field(
        1000, ge=1, description="Maximum number of background responses that have not ended."
    )
    socket_streams_limit: int = Field(
        16,
        ge=1,
        description="Maximum number of concurrent responses, and of turns that are transcribed "
        "concurrently, of one WebSocket.",
    )
    socket_waiting_limit: int = Field(
        64,
        ge=1,
        description="Maximum number of queued requests of one WebSocket; together "
        "they have at most `body_limit_bytes`.",
    )
    socket_idle_timeout_s: float = Field(
        900, gt=0, description="Seconds after which an idle WebSocket for responses is closed."
    )

    @field_validator("mcp_servers")
    @classmethod
    def _check_urls(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for url in value:
            if not url.startswith(("http://", "https://")):
                raise ValueError(f"{url} is not an http or https URL")
        return value
