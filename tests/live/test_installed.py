"""The built wheel serves as a gateway where there is neither a compiler nor the local engine."""

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import venv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import openai
import pytest

from llm_backend.extras import EXTRAS
from tests.read_only import read_only_but
from tests.serving import Served, serve

ROOT = Path(__file__).parents[2]
INSTALL = "pip install 'llm-backend[local]'"
SOURCES = ("pyproject.toml", "hatch_build.py", "README.md", "LICENSE", "openapi", "llm_backend")
MADE = ("__pycache__", "compiled*", "libnucleus.so*", "libprefill.so*")
HELLO = [{"role": "user", "content": "Hello!"}]
BAR = f"import sys; sys.modules.update(dict.fromkeys({EXTRAS['local']}))"


@dataclass(frozen=True, kw_only=True)
class Installation:
    """A virtual environment with the wheel, outside of the checkout."""

    wheel: Path
    program: Path
    folder: Path

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Runs a command from the folder, with an empty environment."""
        return subprocess.run(
            [self.program, *words], cwd=self.folder, env={"HOME": str(self.folder)},
            capture_output=True, text=True, check=False,
        )  # fmt: skip


@pytest.fixture(scope="module")
def installed() -> Iterator[Installation]:
    """Shares the libraries of this environment, and bars imports of those of the engine."""
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        folder = Path(name)
        wheel = build_wheel(folder)
        venv.create(folder / "venv", symlinks=True)
        python = folder / "venv/bin/python"
        pip(f"--python={python}", "install", "--no-deps", "--no-index", str(wheel))
        packages = next((folder / "venv/lib").glob("python*/site-packages"))
        (packages / "libraries.pth").write_text(f"{sysconfig.get_path('purelib')}\n{BAR}\n")
        work = folder / "work"
        work.mkdir()
        yield Installation(wheel=wheel, program=folder / "venv/bin/llm-backend", folder=work)


def build_wheel(folder: Path) -> Path:
    """Builds the wheel of a copy of the sources, as without a compiler."""
    source = folder / "source"
    source.mkdir()
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns(*MADE))
        else:
            shutil.copy(ROOT / name, source)
    wheels = folder / "wheels"
    pip("wheel", "--no-deps", "--no-index", "--no-build-isolation", f"--wheel-dir={wheels}",
        str(source), CC="no-compiler")  # fmt: skip
    (wheel,) = wheels.iterdir()
    return wheel


def pip(*words: str, **environment: str) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *words]
    done = subprocess.run(
        command, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def gateway(installed: Installation, server: Served) -> Iterator[Served]:
    """Serves from another folder; everything but its data folder is read-only, its home too."""
    data = installed.folder / "data"
    data.mkdir()
    environment = {
        "HOME": str(installed.folder),
        "PYTHONPATH": "",  # the installation itself
        "TMPDIR": str(data),
        "OPENAI_BASE_URL": server.base_url,
        "OPENAI_API_KEY": "sk-upstream",
    }
    with serve(
        data,
        environment=environment,
        prefix=read_only_but(data),
        program=[str(installed.program)],
        folder=installed.folder,
    ) as served:
        yield served


def test_wheel_without_a_compiler_is_pure(installed):
    assert installed.wheel.name.endswith("-py3-none-any.whl")


def test_gateway_without_the_engine_relays_stores_and_shows_the_page(gateway):
    with openai.OpenAI(base_url=gateway.base_url, api_key="none", max_retries=0) as client:
        models = [model.id for model in client.models.list()]
        answer = client.chat.completions.create(model="builtin", messages=HELLO, store=True)
        stored = client.chat.completions.retrieve(answer.id)
        file = client.files.create(file=("a.txt", b"text"), purpose="user_data")
        content = client.files.content(file.id).read()
    pages = [httpx.get(gateway.address + path).status_code for path in ("/", "/docs", "/readyz")]

    assert "builtin" in models  # the upstream's
    assert stored.choices[0].message.content == answer.choices[0].message.content
    assert content == b"text"
    assert pages == [200, 200, 200]
    assert "Traceback" not in gateway.log.read_text()


def test_installation_without_the_engine_names_the_extra_where_it_needs_it(installed):
    pull, serve_model, check = (
        installed.run(*words.split())
        for words in ("models pull a/b", "serve --model builtin --data-dir data", "check")
    )

    assert "pip install 'llm-backend[local,hub]'" in pull.stderr
    assert INSTALL in serve_model.stderr
    assert INSTALL in check.stdout
    assert (pull.returncode, serve_model.returncode) == (1, 1)
    assert "Traceback" not in pull.stderr + serve_model.stderr + check.stderr


def test_installed_commands_print_the_same_anywhere(installed):
    assert (
        installed.run("operations", "--markdown").stdout == (ROOT / "docs/coverage.md").read_text()
    )
