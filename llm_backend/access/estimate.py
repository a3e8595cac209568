"""How many tokens a request may take, and how much text is in it where nobody tells them (pure)."""

import re

from llm_backend.contract.request import Request

__all__ = ["BYTES_A_TOKEN", "text_bytes", "tokens_of"]

BYTES_A_TOKEN = 4  # of text, before it is known how many tokens it had, or where nobody tells
_ANSWER_TOKENS = ("max_completion_tokens", "max_output_tokens", "max_tokens")

FILE_BYTES = 4096  # what a picture, a sound or a file counts as: about a thousand tokens
# Nobody writes so much without a blank or a mark: it is a file in base64. It is looked for only
# where such text begins, so that each byte is looked at once, whatever a body consists of.
_FILE = re.compile(rb"(?<![A-Za-z0-9+/=_-])[A-Za-z0-9+/=_-]{%d,}" % FILE_BYTES)


def tokens_of(request: Request) -> int:
    """The tokens that a request may take: those of its body, and those that it allows an answer."""
    body = request.body if isinstance(request.body, dict) else {}
    wanted = [body[name] for name in _ANSWER_TOKENS if isinstance(body.get(name), int)]
    # The document bounds none of these: less than nothing would be room that nobody has given.
    allowed = max(0, wanted[0]) if wanted else 0
    return max(1, text_bytes(request.raw_body) // BYTES_A_TOKEN) + allowed


def text_bytes(body: bytes) -> int:
    """The bytes of a body, with so many for each file in it."""
    if len(body) < FILE_BYTES:
        return len(body)
    return len(body) - sum(len(file) - FILE_BYTES for file in _FILE.findall(body))
