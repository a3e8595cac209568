"""State of the process that a test module leaves as it was: any other module may follow."""

import os
import signal
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["process_state"]

# not SIGINT, which an event loop handles that a whole module uses
_SIGNALS = (signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD, signal.SIGUSR1)
_OF_PYTEST = "PYTEST_CURRENT_TEST"
_STAND_INS = (tempfile.gettempdir(), str(Path(__file__).parent / "fake_diffusion"))


def process_state() -> Mapping[str, Any]:
    """The environment, folder, import path, signal handlers and stand-ins of modules."""
    return {
        "environment": {name: text for name, text in os.environ.items() if name != _OF_PYTEST},
        "folder": os.getcwd(),
        "import path": list(sys.path),
        "signal handlers": {each.name: signal.getsignal(each) for each in _SIGNALS},
        "stand-ins of modules": _stand_ins(),
    }


def _stand_ins() -> set[str]:
    """Modules that were hidden, or come from a folder of tests."""
    return {
        name
        for name, module in sys.modules.items()
        if module is None or str(getattr(module, "__file__", None)).startswith(_STAND_INS)
    }
