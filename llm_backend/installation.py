"""Commands for hints, in the form that works for this installation and current folder: in a
checkout, in a virtual environment, or with the programs on the PATH."""

import shlex
import shutil
import sys
from importlib.metadata import version
from pathlib import Path

_CHECKOUT = Path(__file__).parents[1]


def command(words: str) -> str:
    """Returns the command that runs this program with `words`, like `llm-backend keys list`."""
    program = _programs() / "llm-backend"
    return f"{_shell_name(program) or f'{_python()} -m llm_backend'} {words}"


def pip() -> str:
    """Returns the command of the pip that installs into this program's environment."""
    return _shell_name(_programs() / "pip") or f"{_python()} -m pip"


def rebuild_command() -> str:
    """Returns the command that rebuilds llama.cpp."""
    if is_checkout():
        return "make clean run"
    requirement = f"llama-cpp-python=={version('llama-cpp-python')}"
    return f"{pip()} install --force-reinstall --no-deps --no-cache-dir {requirement}"


def reinstall_command() -> str:
    """Returns the command that compiles and installs this program again."""
    if is_checkout():
        return "make clean run"
    return f"{pip()} install --force-reinstall --no-deps --no-cache-dir llm-backend"


def port_command() -> str:
    """Returns the option that chooses another port."""
    return '--port N (or make run ARGS="--port N")' if is_checkout() else "--port N"


def is_checkout() -> bool:
    """Returns True if this package runs from a checkout of its repository."""
    return (_CHECKOUT / "Makefile").is_file() and (_CHECKOUT / "openapi").is_dir()


def _programs() -> Path:
    """Returns the folder of this environment's programs."""
    return Path(sys.executable).parent


def _python() -> str:
    return _shell_name(Path(sys.executable)) or "python"


def _shell_name(program: Path) -> str | None:
    """Returns the shortest name by which a shell in this folder runs a program; None if missing."""
    if not program.exists():
        return None
    found = shutil.which(program.name)
    # A Python that is a link belongs to the environment of the link's path.
    if found is not None and Path(found).samefile(program) and not program.is_symlink():
        return program.name
    for folder, prefix in ((Path.cwd(), ""), (Path.home(), "~/")):
        if program.is_relative_to(folder):
            return f"{prefix}{shlex.quote(str(program.relative_to(folder)))}"
    return shlex.quote(str(program))
