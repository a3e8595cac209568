"""How many tokens a request may take, and how much text is in it where nobody tells them (pure)."""

from llm_backend.contract.body_bounds import text_bytes
from llm_backend.contract.request import ApiRequest

__all__ = ["BYTES_A_TOKEN", "text_bytes", "tokens_of"]

BYTES_A_TOKEN = 4  # of text, before it is known how many tokens it had, or where nobody tells
_ANSWER_TOKENS = ("max_completion_tokens", "max_output_tokens", "max_tokens")


def tokens_of(request: ApiRequest) -> int:
    """The tokens that a request may take: those of its body, and those that it allows an answer."""
    body = request.body if isinstance(request.body, dict) else {}
    wanted = [body[name] for name in _ANSWER_TOKENS if isinstance(body.get(name), int)]
    # The document bounds none of these: less than nothing would be room that nobody has given.
    allowed = max(0, wanted[0]) if wanted else 0
    return max(1, text_bytes(request.raw_body) // BYTES_A_TOKEN) + allowed
