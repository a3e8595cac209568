"""Log of native code: forwarded at debug level, with a buffer of its last errors."""

import logging
from collections import deque
from collections.abc import Callable
from typing import Any, ClassVar

_ERROR = 4  # GGML_LOG_LEVEL_ERROR, which the bindings do not name


class NativeLog:
    """Forwards lines of the native code to `log` at debug level; stores the last errors to explain
    a failure."""

    # Any: function types of ctypes. Native code calls the callback it was given last, also after
    # the object that gave it is gone: this reference lets it live.
    _in_use: ClassVar[dict[str, Any]] = {}

    # Any: a function type of ctypes
    def __init__(self, log: logging.Logger, callback_type: Callable[..., Any]) -> None:
        self._log = log
        self.errors: deque[str] = deque(maxlen=4)
        self.callback = callback_type(self._forward)

    def redirect(self, set_log: Callable[..., Any]) -> None:
        """Gives the callback to `set_log`, the function of a native library, until another log is
        given to it."""
        set_log(self.callback, None)
        self._in_use[set_log.__name__] = self.callback

    def _forward(self, level: int, text: bytes, _user_data: object) -> None:
        line = text.decode(errors="replace").strip()
        if not line or line == ".":
            return
        if level == _ERROR:
            self.errors.append(line)
        self._log.debug("%s", line)

    def pop_reason(self) -> str:
        """Returns the last errors, the first of which says most, and clears them."""
        reason = "; ".join(self.errors) or "the native code gives no reason"
        self.errors.clear()
        return reason
