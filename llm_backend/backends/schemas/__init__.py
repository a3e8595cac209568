"""JSON schemas of clients as grammars can follow them: rewritten, or refused by place. Pure."""

from llm_backend.backends.schemas.answer_schema import AnswerSchema
from llm_backend.backends.schemas.followed import Followed, follow
from llm_backend.backends.schemas.kinds import Path

__all__ = ["AnswerSchema", "Followed", "Path", "follow"]
