"""State of the process that a test module leaves as it was: any other module may follow."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["process_state"]

_OF_PYTEST = "PYTEST_CURRENT_TEST"
_FOLDERS_OF_TESTS = ("/pytest-of-", str(Path(__file__).parent / "fake_diffusion"))


def process_state() -> Mapping[str, Any]:
    """The environment, folder, import path and stand-ins of modules."""
    return {
        "environment": {name: text for name, text in os.environ.items() if name != _OF_PYTEST},
        "folder": os.getcwd(),
        "import path": list(sys.path),
        "stand-ins of modules": _stand_ins(),
    }


def _stand_ins() -> set[str]:
    """Modules that were hidden, or come from a folder of tests."""
    return {
        name
        for name, module in sys.modules.items()
        if module is None
        or any(one in str(getattr(module, "__file__", None)) for one in _FOLDERS_OF_TESTS)
    }
