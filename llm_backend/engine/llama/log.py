"""Log of the native code: forwarded at debug level, with a buffer of its last errors."""

import ctypes
import logging
from collections import deque

import llama_cpp as native

_log = logging.getLogger("llm_backend.engine.llama")

_ERROR = 4  # GGML_LOG_LEVEL_ERROR, which the bindings do not name


class NativeLog:
    """Forwards lines of the native code at debug level; stores the last errors to explain a
    failure."""

    def __init__(self) -> None:
        self.errors: deque[str] = deque(maxlen=4)
        self.callback = native.llama_log_callback(self._forward)

    def _forward(self, level: int, text: bytes, _user_data: object) -> None:
        line = text.decode(errors="replace").strip()
        if not line or line == ".":
            return
        if level == _ERROR:
            self.errors.append(line)
        _log.debug("%s", line)

    def pop_reason(self) -> str:
        """Returns the last errors, the first of which says most, and clears them."""
        reason = "; ".join(self.errors) or "the native code gives no reason"
        self.errors.clear()
        return reason


def capture_log() -> NativeLog:
    """Redirect the native log for as long as the returned object lives."""
    log = NativeLog()
    native.llama_log_set(log.callback, ctypes.c_void_p(0))
    return log
