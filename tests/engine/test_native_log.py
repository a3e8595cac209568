"""Logs of native code."""

import subprocess
import sys

DROPPED = """
import gc, logging
import llama_cpp
from llm_backend.engine.llama import capture_log

logging.basicConfig(level=logging.DEBUG)
capture_log()
gc.collect()
others = [bytes(64) for _ in range(100_000)]  # in the memory of what was dropped
assert not llama_cpp.llama_model_load_from_file(
    b"/missing.gguf", llama_cpp.llama_model_default_params()
)
"""


def test_native_code_logs_after_the_object_of_its_log_is_dropped():
    done = subprocess.run(
        [sys.executable, "-c", DROPPED], capture_output=True, text=True, timeout=60
    )

    assert done.returncode == 0, done.stderr
    assert "/missing.gguf" in done.stderr
