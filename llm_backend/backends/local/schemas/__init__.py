"""JSON Schema for structured output: rewrites clients' schemas for llguidance, or rejects them with
the place of the unsupported keyword. Pure."""

from llm_backend.backends.local.schemas.answer_schema import AnswerSchema
from llm_backend.backends.local.schemas.followed import Followed, follow
from llm_backend.backends.local.schemas.kinds import Path

__all__ = ["AnswerSchema", "Followed", "Path", "follow"]
