"""How a command ends that cannot do its work."""

import sys
from typing import NoReturn

__all__ = ["fail"]


def fail(sentence: str) -> NoReturn:
    """Say why on standard error and end with status 1."""
    print(f"llm-backend: {sentence}", file=sys.stderr)
    raise SystemExit(1)
