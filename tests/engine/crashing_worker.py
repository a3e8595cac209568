"""A worker that dies on purpose: `python -m tests.engine.crashing_worker HOW FD`."""

import logging
import os
import signal
import sys
import time

from llm_backend.engine.generator import Generator
from llm_backend.engine.llama import LlamaModel
from llm_backend.engine.process import worker


def die() -> None:
    """As a fault in native code would."""
    signal.signal(signal.SIGSEGV, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGSEGV)
    time.sleep(60)


class DiesOfExtraBuffers(LlamaModel):
    def prove(self) -> None:
        if self._start.use_extra_buffers:
            die()
        super().verify()


class DiesAlways(LlamaModel):
    def prove(self) -> None:
        die()


class DiesOfWord(Generator):
    def submit(self, address, command, now) -> None:
        if "deadly" in str(getattr(command, "prompt", "")):
            die()
        super().submit(address, command, now)


class DiesComputingWord(Generator):
    def _forward(self, work):
        for item in work:
            if "deadly" in str(self._requests[item.sequence.request].command.prompt):
                die()
        return super()._forward(work)


class FailsOfWord(Generator):
    def submit(self, address, command, now) -> None:
        if "broken" in str(command.prompt):
            raise RuntimeError("a bug in taking a command")
        super().submit(address, command, now)

    def turn(self, now) -> None:
        for request in [self._requests[address] for address in self._requests]:
            if "poison" in str(request.command.prompt) and self._scheduler.running:
                raise RuntimeError("a bug in a turn")
        super().turn(now)


class SaysWhy(LlamaModel):
    def prove(self) -> None:
        logging.getLogger("llm_backend.engine.process.worker").error("engine.example")
        sys.stderr.write("ggml.c:1: GGML_ASSERT(everything) failed\n")
        sys.stderr.flush()
        die()


def main() -> None:
    match sys.argv[1]:
        case "extra-buffers":
            worker.LlamaModel = DiesOfExtraBuffers
        case "always":
            worker.LlamaModel = DiesAlways
        case "word":
            worker.Generator = DiesOfWord
        case "computing":
            worker.Generator = DiesComputingWord
        case "fails":
            worker.Generator = FailsOfWord
        case "says-why":
            worker.LlamaModel = SaysWhy
        case "hangs":
            time.sleep(60)
    worker.main()
    if sys.argv[1] == "stays":
        time.sleep(60)


if __name__ == "__main__":
    main()
