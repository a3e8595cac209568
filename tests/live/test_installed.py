"""`make install`: a gateway where there is neither a compiler nor the local engine."""

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
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
SOURCES = (
    "Makefile", "pyproject.toml", "hatch_build.py", "README.md", "LICENSE", "openapi",
    "llm_backend", "requirements",
)  # fmt: skip
OTHER_USER = 65534
MADE = ("__pycache__", "compiled*", "libnucleus.so*", "libprefill.so*")
HELLO = [{"role": "user", "content": "Hello!"}]
BAR = f"import sys; sys.modules.update(dict.fromkeys({EXTRAS['local']}))"


@dataclass(frozen=True, kw_only=True)
class Installation:
    """An installation outside of the checkout, and a folder beside it."""

    prefix: Path
    folder: Path

    @property
    def program(self) -> Path:
        """The command."""
        return self.prefix / "bin" / "llm-backend"

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Runs a command from the folder, with an empty environment."""
        return subprocess.run(
            [self.program, *words], cwd=self.folder, env={"HOME": str(self.folder)},
            capture_output=True, text=True, check=False,
        )  # fmt: skip


@pytest.fixture(scope="module")
def installed() -> Iterator[Installation]:
    """`make install` of a copy of the sources, which may write nowhere else.

    Its environment is made before: it shares the libraries of this one, and bars imports of those
    of the engine.
    """
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        folder = Path(name)
        folder.chmod(0o755)  # for other users
        source, work, prefix = (folder / name for name in ("source", "work", "prefix"))
        copy_sources(source)
        work.mkdir()
        make_environment(prefix / "lib" / "llm-backend")
        environment = {**os.environ, "HOME": name, "TMPDIR": name, "CC": "no-compiler"}
        make = ["make", "install", f"PREFIX={prefix}"]
        done = subprocess.run(
            [*read_only_but(folder), *make],
            cwd=source, env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        yield Installation(prefix=prefix, folder=work)


def copy_sources(folder: Path) -> None:
    folder.mkdir()
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns(*MADE))
        else:
            shutil.copy(ROOT / name, folder)


def python() -> str:
    """The system's Python if it has the version of this one: other users may run it."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    return shutil.which(version, path="/usr/bin") or sys.executable


def make_environment(folder: Path) -> None:
    """Makes what `make setup` makes in minutes: a newer stamp has make leave it as it is."""
    subprocess.run([python(), "-m", "venv", "--without-pip", folder], check=True)
    packages = next((folder / "lib").glob("python*/site-packages"))
    (packages / "libraries.pth").write_text(f"{sysconfig.get_path('purelib')}\n{BAR}\n")
    (folder / ".installed").touch()


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


def test_installation_without_a_compiler_is_pure_and_needs_no_checkout(installed):
    (wheel,) = installed.prefix.glob("lib/llm-backend/lib/*/site-packages/llm_backend-*/WHEEL")
    tried = "import llm_backend; print(llm_backend.__file__)"
    python = installed.prefix / "lib/llm-backend/bin/python"
    where = subprocess.check_output([python, "-c", tried], cwd=installed.folder, env={}, text=True)

    assert "Tag: py3-none-any" in wheel.read_text().splitlines()
    assert where.startswith(str(installed.prefix))


def test_gateway_of_another_user_needs_no_home(installed, server):
    data = installed.folder / "of-another"
    data.mkdir()
    environment = {
        "HOME": "/nonexistent",
        "PYTHONPATH": "",
        "TMPDIR": str(data),
        "OPENAI_BASE_URL": server.base_url,
        "OPENAI_API_KEY": "sk-upstream",
    }
    with serve(
        data,
        environment=environment,
        prefix=as_other_user(installed, data),
        program=[str(installed.program)],
        folder=installed.folder,
    ) as served:
        with openai.OpenAI(base_url=served.base_url, api_key="none", max_retries=0) as client:
            answer = client.chat.completions.create(model="builtin", messages=HELLO, store=True)
            stored = client.chat.completions.retrieve(answer.id)
        status = Path(f"/proc/{served.process.pid}/status").read_text()

    assert f"Uid:\t{OTHER_USER}" in status
    assert stored.choices[0].message.content == answer.choices[0].message.content
    assert (data / "llm-backend.sqlite3").stat().st_uid == OTHER_USER


def as_other_user(installed: Installation, data: Path) -> list[str]:
    """Prefix of a command of another user, who may write into this folder only."""
    if os.geteuid() != 0 or not shutil.which("setpriv"):
        pytest.skip("Only root, with setpriv, runs a command as another user.")
    user = ["setpriv", f"--reuid={OTHER_USER}", f"--regid={OTHER_USER}", "--clear-groups", "--"]
    tried = [*user, "sh", "-c", f"{installed.prefix}/lib/llm-backend/bin/python -c ''"]
    if subprocess.run(tried, check=False).returncode:
        pytest.skip("Other users may not run the Python of these tests.")
    prefix = read_only_but(data)
    os.chown(data, OTHER_USER, OTHER_USER)
    return [*prefix, *user]


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
