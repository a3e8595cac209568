"""What native code has to say: to our log at debug, and its last errors kept."""

import ctypes
import logging
from collections import deque

import llama_cpp as native

__all__ = ["NativeLog", "capture_log"]

_log = logging.getLogger("llm_backend.engine.llama")

_ERROR = 4  # GGML_LOG_LEVEL_ERROR, which the bindings do not name


class NativeLog:
    """Lines of native code to our log at debug; the last errors are kept to explain a failure."""

    def __init__(self) -> None:
        self.errors: deque[str] = deque(maxlen=4)
        self.callback = native.llama_log_callback(self._take)

    def _take(self, level: int, text: bytes, _user_data: object) -> None:
        line = text.decode(errors="replace").strip()
        if not line or line == ".":
            return
        if level == _ERROR:
            self.errors.append(line)
        _log.debug("%s", line)

    def reason(self) -> str:
        """The last errors, the first of which says most; they are told once."""
        told = "; ".join(self.errors) or "the native code gives no reason"
        self.errors.clear()
        return told


def capture_log() -> NativeLog:
    """Redirect the native log for as long as the value is kept."""
    log = NativeLog()
    native.llama_log_set(log.callback, ctypes.c_void_p(0))
    return log
