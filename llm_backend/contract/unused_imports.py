"""Keeps libraries that are imported but not used out of the process.

Connexion imports three HTTP clients, for documents behind URLs, for tokens checked remotely and
for its test client, Werkzeug for what handlers find in a context, and Flask where it is installed.
None of that is used here, and it is more than half of its import time and memory.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import cast

__all__ = ["block_imports"]


@contextmanager
def block_imports(*missing: str, **names: tuple[str, ...]) -> Iterator[None]:
    """Imports within fail for the modules in `missing`, as if they were not installed, and find an
    empty module in place of each other one that is named (`a__b` is `a.b`).

    Each of these comes with the names that are imported from it, which stand for nothing. Modules
    that are loaded already stay; afterwards all of them can be imported as ever.
    """
    absent: dict[str, ModuleType | None] = dict.fromkeys(missing)
    for name, wanted in names.items():
        empty = ModuleType(name.replace("__", "."))
        vars(empty).update(dict.fromkeys(wanted, _Nothing))
        absent[empty.__name__] = empty
    absent = {name: module for name, module in absent.items() if name not in sys.modules}
    modules = cast("dict[str, ModuleType | None]", sys.modules)  # None: not to be found
    modules.update(absent)
    try:
        yield
    finally:
        for name in absent:
            del modules[name]


class _Nothing:
    """Can be made of anything, for modules that do so when they are imported."""

    def __init__(self, *_: object, **__: object) -> None: ...
