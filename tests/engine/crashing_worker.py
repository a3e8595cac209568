"""A worker that crashes on purpose: `python -m tests.engine.crashing_worker HOW FD`."""

import logging
import os
import resource
import signal
import sys
import time
from typing import Any

from llm_backend.engine import llama
from llm_backend.engine.generator import Generator
from llm_backend.engine.llama import LlamaModel
from llm_backend.engine.messages import ENDED_ITSELF_STATUS
from llm_backend.engine.process import model_loading, worker

LITTLE_BYTES = 3 << 30  # of addresses; libraries and stacks of threads take one


def crash() -> None:
    """Crash as a fault in native code does: by SIGSEGV."""
    signal.signal(signal.SIGSEGV, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGSEGV)
    time.sleep(60)


class CrashingWithExtraBuffers(LlamaModel):
    def verify(self) -> None:
        if self._config.use_extra_buffers:
            crash()
        super().verify()


class CrashingWithPrefillKernels(LlamaModel):
    def verify(self) -> None:
        if self._config.prefill_kernels:
            crash()
        super().verify()


class CrashingModel(LlamaModel):
    def verify(self) -> None:
        crash()


class KilledModel(LlamaModel):
    """Is killed as an operator or the kernel does it, before it is loaded."""

    def __init__(self, *_: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


class CrashingAtSubmit(Generator):
    def submit(self, address, command, now) -> None:
        if "deadly" in str(getattr(command, "prompt", "")):
            crash()
        super().submit(address, command, now)


class CrashingInPass(Generator):
    def _forward(self, work):
        for item in work:
            if "deadly" in str(self._requests[item.sequence.request].command.prompt):
                crash()
        return super()._forward(work)


class FailingGenerator(Generator):
    def submit(self, address, command, now) -> None:
        if "broken" in str(command.prompt):
            raise RuntimeError("a bug in taking a command")
        super().submit(address, command, now)

    def step(self, now) -> None:
        for request in [self._requests[address] for address in self._requests]:
            if "poison" in str(request.command.prompt) and self._scheduler.running:
                raise RuntimeError("a bug in a step")
        super().step(now)


class CrashingAtSave(LlamaModel):
    def state(self, slot):
        crash()


class CrashingAtRestore(LlamaModel):
    def restore(self, slot, state, end):
        crash()


class EndingItselfModel(LlamaModel):
    """Ends as a worker does whose image is not wanted any more, but before it is ready."""

    def verify(self) -> None:
        os._exit(ENDED_ITSELF_STATUS)


class AbortingModel(LlamaModel):
    def verify(self) -> None:
        logging.getLogger("llm_backend.engine.process.worker").error("engine.example")
        sys.stderr.write("ggml.c:1: GGML_ASSERT(everything) failed\n")
        sys.stderr.flush()
        crash()


MODELS = {
    "extra-buffers": CrashingWithExtraBuffers,
    "prefill-kernels": CrashingWithPrefillKernels,
    "always": CrashingModel,
    "killed": KilledModel,
    "saves": CrashingAtSave,
    "short-of-memory": CrashingAtSave,
    "restores": CrashingAtRestore,
    "ends-itself": EndingItselfModel,
    "says-why": AbortingModel,
}
GENERATORS = {
    "word": CrashingAtSubmit,
    "computing": CrashingInPass,
    "fails": FailingGenerator,
}


def main() -> None:
    how = sys.argv[1]
    module: Any = model_loading  # whose classes are replaced
    models: Any = llama
    models.LlamaModel = MODELS.get(how, LlamaModel)
    module.Generator = GENERATORS.get(how, Generator)
    if how == "little-memory":
        resource.setrlimit(resource.RLIMIT_AS, (LITTLE_BYTES, LITTLE_BYTES))
    elif how == "short-of-memory":
        module.available_memory_bytes = lambda: 0
    elif how == "hangs":
        time.sleep(60)
    worker.main()
    if how == "stays":
        time.sleep(60)


if __name__ == "__main__":
    main()
