"""How a command ends that cannot do its work."""

import sys
from typing import NoReturn

__all__ = ["fail"]


def fail(sentence: str, status: int = 1) -> NoReturn:
    """Say why on standard error and end with this status; 2 is for a command line that is wrong."""
    print(f"llm-backend: {sentence}", file=sys.stderr)
    raise SystemExit(status)
