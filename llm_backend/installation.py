"""Commands for hints, as they work where this program is installed and was started: in a checkout,
in an environment of its own, or with both on the PATH."""

import shlex
import shutil
import sys
from importlib.metadata import version
from pathlib import Path

_CHECKOUT = Path(__file__).parents[1]


def command(words: str) -> str:
    """Returns the command that runs this program with `words`, like `llm-backend keys list`."""
    own = _programs() / "llm-backend"
    return f"{_shell_name(own) or f'{_python()} -m llm_backend'} {words}"


def pip() -> str:
    """Returns the command of the pip that installs into this program's environment."""
    return _shell_name(_programs() / "pip") or f"{_python()} -m pip"


def rebuild_command() -> str:
    """Returns the command that rebuilds llama.cpp."""
    if is_checkout():
        return "make clean run"
    wanted = f"llama-cpp-python=={version('llama-cpp-python')}"
    return f"{pip()} install --force-reinstall --no-deps --no-cache-dir {wanted}"


def reinstall_command() -> str:
    """Returns the command that compiles and installs this program again."""
    if is_checkout():
        return "make clean run"
    return f"{pip()} install --force-reinstall --no-deps --no-cache-dir llm-backend"


def port_command() -> str:
    """Returns how another port is chosen."""
    return '--port N (or make run ARGS="--port N")' if is_checkout() else "--port N"


def is_checkout() -> bool:
    """Returns True if the package lies in its repository, beside the Makefile."""
    return (_CHECKOUT / "Makefile").is_file() and (_CHECKOUT / "openapi").is_dir()


def _programs() -> Path:
    """The folder of the programs of this environment."""
    return Path(sys.executable).parent


def _python() -> str:
    return _shell_name(Path(sys.executable)) or "python"


def _shell_name(program: Path) -> str | None:
    """Returns the shortest text that a shell of this folder runs it by; None if it is missing."""
    if not program.exists():
        return None
    found = shutil.which(program.name)
    # Many environments link to one Python, which acts by the path of the link.
    if found is not None and Path(found).samefile(program) and not program.is_symlink():
        return program.name
    for folder, prefix in ((Path.cwd(), ""), (Path.home(), "~/")):
        if program.is_relative_to(folder):
            return f"{prefix}{shlex.quote(str(program.relative_to(folder)))}"
    return shlex.quote(str(program))
