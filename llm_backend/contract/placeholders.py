"""Keeps libraries that are imported but not used out of the process.

Connexion imports three HTTP clients, for documents behind URLs, for tokens checked remotely and
for its test client. None of that is used here, and they are half of its import time and memory.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

__all__ = ["held_back"]


@contextmanager
def held_back(**names: tuple[str, ...]) -> Iterator[None]:
    """Imports within find an empty module in place of each named one (`a__b` is `a.b`).

    Each comes with the names that are imported from it. Modules that are loaded already stay;
    afterwards all of them can be imported as ever.
    """
    absent = {name.replace("__", "."): wanted for name, wanted in names.items()}
    absent = {name: wanted for name, wanted in absent.items() if name not in sys.modules}
    for name, wanted in absent.items():
        sys.modules[name] = ModuleType(name)
        vars(sys.modules[name]).update(dict.fromkeys(wanted))
    try:
        yield
    finally:
        for name in absent:
            del sys.modules[name]
