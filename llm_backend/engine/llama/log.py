"""Log of llama.cpp."""

import logging

import llama_cpp as native

from llm_backend.engine.native_log import NativeLog


class LlamaLog(NativeLog):
    """The lines of llama.cpp and of its projectors, wherever the log is redirected to it."""

    def __init__(self) -> None:
        super().__init__(logging.getLogger("llm_backend.engine.llama"), native.llama_log_callback)


def capture_log() -> LlamaLog:
    """Redirects the native log to the returned object."""
    log = LlamaLog()
    log.redirect(native.llama_log_set)
    return log
