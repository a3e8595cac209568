"""Log of native code: forwarded at debug level, with a buffer of its last errors."""

import logging
from collections import deque
from collections.abc import Callable
from typing import Any

_ERROR = 4  # GGML_LOG_LEVEL_ERROR, which the bindings do not name


class NativeLog:
    """Forwards lines of the native code to `log` at debug level; stores the last errors to explain
    a failure. Must outlive the use of `callback`."""

    # Any: a function type of ctypes
    def __init__(self, log: logging.Logger, callback_type: Callable[..., Any]) -> None:
        self._log = log
        self.errors: deque[str] = deque(maxlen=4)
        self.callback = callback_type(self._forward)

    def _forward(self, level: int, text: bytes, _user_data: object) -> None:
        line = text.decode(errors="replace").strip()
        if not line or line == ".":
            return
        if level == _ERROR:
            self.errors.append(line)
        self._log.debug("%s", line)

    def pop_reason(self) -> str:
        """Return the last errors, the first of which says most, and clear them."""
        reason = "; ".join(self.errors) or "the native code gives no reason"
        self.errors.clear()
        return reason
