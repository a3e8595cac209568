"""Random texts by a schema: each token is any that llguidance allows."""

import json
import random

from llm_backend.engine.messages import GrammarLimits
from llm_backend.engine.sampling.constraint import Grammars

ENDS = {ord(character) for character in '"}],:'}


class Bytes:
    """Vocabulary of single bytes and an end token."""

    size = 257
    end_tokens = markers = frozenset({256})

    def token_bytes(self, token: int) -> bytes:
        return bytes([token]) if token < 256 else b"<end>"

    def tokenize(self, text: str, *, parse_special: bool) -> list[int]:
        return list(text.encode())


GRAMMARS = Grammars(Bytes(), GrammarLimits())


def grammar(schema: object) -> str:
    compact = {"x-guidance": {"whitespace_flexible": False}}
    return f"start: %json {json.dumps(schema | compact)}"


def sample(schema: object, dice: random.Random) -> str | None:
    """Returns a text by the schema, ended as soon as it may; None if it becomes too long."""
    constraint = GRAMMARS.compile(grammar(schema)).result().constraint()
    text = b""
    for _ in range(600):
        (allowed,) = constraint.mask().nonzero()
        ends = [token for token in allowed if token in ENDS]
        token = int(dice.choice(ends if ends and dice.random() < 0.6 else allowed))
        if token in Bytes.end_tokens:
            return text.decode()
        text += Bytes().token_bytes(token)
        constraint.accept(token)
        if constraint.is_complete:
            return text.decode()
    return None
