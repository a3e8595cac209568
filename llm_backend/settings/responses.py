"""What responses may use besides a model, and how many are at work."""

from collections.abc import Mapping

from pydantic import BaseModel, Field, field_validator

from llm_backend.settings.kinds import Names
from llm_backend.settings.prompt import PromptSettings

__all__ = ["ResponsesSettings"]


class ResponsesSettings(BaseModel):
    """What responses may use besides a model, and how many are at work."""

    prompts: Mapping[str, PromptSettings] = Field(
        {},
        description="Prompts by the ids that a response's `prompt` has; in the file only, as "
        "stands under `One prompt`.",
    )
    mcp_servers: Names = Field(
        (),
        description="URLs of the MCP servers that responses with `mcp` tools may use; others are "
        "refused.",
    )
    mcp_timeout_s: float = Field(
        60, gt=0, description="Seconds that an MCP server gets for an answer."
    )
    tool_calls_limit: int = Field(
        32,
        ge=0,
        description="Calls of tools that the server runs, in one response at most; a request's "
        "`max_tool_calls` may lower it.",
    )
    background_limit: int = Field(
        8, ge=1, description="Responses in the background that one process answers at once."
    )
    background_waiting_limit: int = Field(
        1000, ge=1, description="Responses in the background that have not ended at most."
    )
    socket_streams_limit: int = Field(
        16, ge=1, description="Responses that one WebSocket has at work at once at most."
    )
    socket_waiting_limit: int = Field(
        64, ge=1, description="Requests of one WebSocket that wait for others of it at most."
    )
    socket_idle_timeout_s: float = Field(
        900, gt=0, description="Seconds after which a WebSocket for responses that is silent ends."
    )

    @field_validator("mcp_servers")
    @classmethod
    def _web(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for url in value:
            if not url.startswith(("http://", "https://")):
                raise ValueError(f"{url} is no http or https URL")
        return value
