"""Log of llama.cpp."""

import ctypes
import logging

import llama_cpp as native

from llm_backend.engine.native_log import NativeLog


class LlamaLog(NativeLog):
    """The lines of llama.cpp and of its projectors, wherever the log is redirected to it."""

    def __init__(self) -> None:
        super().__init__(logging.getLogger("llm_backend.engine.llama"), native.llama_log_callback)


def capture_log() -> LlamaLog:
    """Redirect the native log for as long as the returned object lives."""
    log = LlamaLog()
    native.llama_log_set(log.callback, ctypes.c_void_p(0))
    return log
