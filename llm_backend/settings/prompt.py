"""One entry of the setting `prompts`."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


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
