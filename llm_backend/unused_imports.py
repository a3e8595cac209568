"""Blocks the import of libraries that others import but this server does not use.

Connexion imports three HTTP clients (for documents behind URLs, remote token checks and its test
client), Werkzeug for its request context, and Flask if it is installed. None of that is used here,
and it is more than half of its import time and memory. SQLAlchemy's asynchronous half imports its
object-relational mapper for sessions.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import cast


@contextmanager
def block_imports(*missing: str, **names: tuple[str, ...]) -> Iterator[None]:
    """Makes imports of `missing` fail, as if not installed, and replaces `names` by empty modules
    (`a__b` is `a.b`).

    Each empty module has placeholders for the names that are imported from it. Modules that are
    loaded already stay; afterwards all of them can be imported as before.
    """
    absent: dict[str, ModuleType | None] = dict.fromkeys(missing)
    for name, members in names.items():
        empty = ModuleType(name.replace("__", "."))
        vars(empty).update(dict.fromkeys(members, _Nothing))
        absent[empty.__name__] = empty
    absent = {name: module for name, module in absent.items() if name not in sys.modules}
    modules = cast("dict[str, ModuleType | None]", sys.modules)  # None: ModuleNotFoundError
    modules.update(absent)
    try:
        yield
    finally:
        for name in absent:
            del modules[name]


class _Placeholder(type):
    """Class of `_Nothing`: it has all public attributes, and items, which are itself."""

    def __getattr__(cls, name: str) -> "_Placeholder":
        if name.startswith("__"):
            raise AttributeError(name)
        return cls

    def __getitem__(cls, _: object) -> "_Placeholder":
        return cls


class _Nothing(metaclass=_Placeholder):
    """Placeholder class; modules instantiate it with any arguments while they are imported, and
    use its instances as decorators."""

    def __init__(self, *_: object, **__: object) -> None: ...

    def __call__(self, decorated: object) -> object:
        return decorated
