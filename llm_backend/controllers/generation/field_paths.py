"""Paths of fields in errors: a chat's, and those of what it was translated from (pure)."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeAlias

from llm_backend.errors import ApiError

RenameField: TypeAlias = Callable[[str], str]
"""Returns the path of a field in another form of the request for its path in the chat."""

_CONTENT_PATH = re.compile(r"messages\[(\d+)\](?:\.content\[(\d+)\])?")


@dataclass(frozen=True, kw_only=True)
class ContentPath:
    """Path of a field of a chat's messages: the index of its message, of its content part if it is
    in one, and what follows."""

    index: int
    part: int | None
    rest: str

    @classmethod
    def parse(cls, path: str) -> "ContentPath | None":
        """Parses a path; returns None for one outside of the messages."""
        found = _CONTENT_PATH.match(path)
        if found is None:
            return None
        part = None if found[2] is None else int(found[2])
        return cls(index=int(found[1]), part=part, rest=path[found.end() :])

    def __str__(self) -> str:
        part = "" if self.part is None else f".content[{self.part}]"
        return f"messages[{self.index}]{part}{self.rest}"


@contextmanager
def rename_fields(rename: RenameField) -> Iterator[None]:
    """Rewrites `param` of errors inside the block, also where their messages have it."""
    try:
        yield
    except ApiError as error:
        if error.param:
            given, error.param = error.param, rename(error.param)
            error.message = error.message.replace(f"`{given}`", f"`{error.param}`")
            error.args = (error.message,)
        raise
