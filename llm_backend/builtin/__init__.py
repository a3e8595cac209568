"""The model that comes with the server: tiny, for the first minute and the tests.

`models/builtin/` makes it.
"""

from pathlib import Path

__all__ = ["BUILTIN_DESCRIPTION", "BUILTIN_ID", "BUILTIN_PATH"]

BUILTIN_ID = "builtin"
BUILTIN_PATH = Path(__file__).with_name("builtin.gguf")
BUILTIN_DESCRIPTION = (
    "A tiny demonstration model of two million parameters that this project trained on its own "
    "texts: it knows this server and some small talk, is often wrong beyond that, and does not "
    "replace a real model."
)
