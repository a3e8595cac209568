"""Exit of a command with an error message."""

import sys
from typing import NoReturn


def exit_with_error(sentence: str, status: int = 1) -> NoReturn:
    """Print the sentence to standard error and exit; status 2 is for a wrong command line."""
    print(f"llm-backend: {sentence}", file=sys.stderr)
    raise SystemExit(status)
