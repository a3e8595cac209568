"""Estimate of the tokens of a request, before or without a real count (pure)."""

from llm_backend.contract.body_bounds import text_bytes
from llm_backend.contract.request import ApiRequest

ESTIMATED_BYTES_PER_TOKEN = 4  # bytes of text a token, before or without a real count
_ANSWER_TOKENS = ("max_completion_tokens", "max_output_tokens", "max_tokens")


def tokens_of(request: ApiRequest) -> int:
    """Estimates the tokens of a request: those of its body, and the limit of its answer, if it has
    one."""
    body = request.body if isinstance(request.body, dict) else {}
    limits = [body[name] for name in _ANSWER_TOKENS if isinstance(body.get(name), int)]
    # The OpenAPI document bounds none of these; a negative number must not create extra budget.
    answer_tokens = max(0, limits[0]) if limits else 0
    return max(1, text_bytes(request.raw_body) // ESTIMATED_BYTES_PER_TOKEN) + answer_tokens
