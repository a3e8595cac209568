"""JSON schemas of clients as grammars can follow them: rewritten, or refused by place. Pure."""

from llm_backend.backends.local.schemas.answer_schema import AnswerSchema
from llm_backend.backends.local.schemas.followed import Followed, follow
from llm_backend.backends.local.schemas.kinds import Path

__all__ = ["AnswerSchema", "Followed", "Path", "follow"]
