"""The release: names, hashes, bill of materials, and what ends it.

The tools are fakes: building takes a minute, and auditwheel and cyclonedx-py are only where a
release is made. Wheels are really built for the tests of an installation.
"""

import hashlib
import importlib.util
import json
import subprocess
import sys
import zipfile
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).parents[1] / "scripts" / "release.py"
ENGINE = "llama_cpp_python-0.3.36-py3-none-linux_x86_64.whl"
# As auditwheel names a wheel that meets a policy; one of the engine goes first, as of any name.
AUDITWHEEL = """
import pathlib, shutil, sys
if sys.argv[1] == "repair":
    folder, wheel = pathlib.Path(sys.argv[3]), pathlib.Path(sys.argv[4])
    folder.mkdir(exist_ok=True)
    shutil.copy(wheel, folder / wheel.name.replace("-linux_", "-{policy}_"))
"""
# Of the requirements only their number is known.
CYCLONEDX = """
import json, pathlib, sys
pins = [line for line in sys.stdin if "==" in line]
pathlib.Path(sys.argv[sys.argv.index("--output-file") + 1]).write_text(
    json.dumps({"bomFormat": "CycloneDX", "components": pins})
)
"""
# hatchling's sdist, pip's wheels of it, and `wheel unpack` and `wheel pack` of one wheel.
PYTHON = """
import os, pathlib, shutil, sys
words = sys.argv[2:]
folder = pathlib.Path(words[{"unpack": 3, "pack": 3}.get(words[1], -1)])
if words[0] == "hatchling":
    folder.mkdir()
    (folder / "llm_backend-0.1.0.tar.gz").write_bytes(b"sources")
elif words[0] == "pip":
    assert pathlib.Path(words[-1]).read_bytes() == b"sources"
    folder = pathlib.Path(words[words.index("--wheel-dir") + 1])
    folder.mkdir()
    kind = "py3-none-any" if os.environ.get("CC") == "false" else "cp311-cp311-linux_x86_64"
    (folder / f"llm_backend-0.1.0-{kind}.whl").write_bytes(b"wheel")
elif words[1] == "unpack":
    wheel = pathlib.Path(words[4])
    shutil.unpack_archive(wheel, folder / wheel.stem, "zip")
else:
    source = pathlib.Path(words[4])
    shutil.make_archive(str(folder / source.name), "zip", source)
    (folder / f"{source.name}.zip").rename(folder / f"{source.name}.whl")
"""
# Runs the script with another Python for its tools.
RUN = """
import runpy, sys
sys.executable, *sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], {}, "__main__")
"""


@pytest.fixture(scope="module")
def release() -> ModuleType:
    """The script, as a module."""
    spec = importlib.util.spec_from_file_location("release", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def make_tools(folder: Path, *, policy: str) -> Path:
    """Writes the tools, of which auditwheel finds that wheels meet this policy."""
    texts = {"auditwheel": AUDITWHEEL.replace("{policy}", policy), "cyclonedx-py": CYCLONEDX}
    folder.mkdir()
    for name, text in {**texts, "python": PYTHON}.items():
        (folder / name).write_text(f"#!{sys.executable}\n{text}")
        (folder / name).chmod(0o755)
    return folder


def make_engine(folder: Path) -> Path:
    """Writes a wheel with two copies of a library, as llama-cpp-python has them."""
    with zipfile.ZipFile(folder / ENGINE, "w") as wheel:
        for name in ("llama_cpp/lib/libllama.so", "lib/libllama.so", "llama_cpp/__init__.py"):
            wheel.writestr(name, b"")
    return folder / ENGINE


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a release that is made where an older one and other files lie."""
    folder = tmp_path_factory.mktemp("release")
    dist = folder / "dist"
    (dist / "notes").mkdir(parents=True)
    (dist / "notes" / "kept.txt").write_text("kept")
    (dist / "SHA256SUMS").write_text("of an older release")
    tools = make_tools(folder / "tools", policy="manylinux_2_35")
    done = subprocess.run(
        [sys.executable, "-c", RUN, tools / "python", SCRIPT,
         "--dist", dist, "--tools", tools, "--engine", make_engine(folder)],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for line in done.stdout.splitlines():
        if line.endswith(" MB)"):
            assert Path(line.rsplit(" (", 1)[0]).is_file()
    return dist


def test_release_has_sdist_wheels_hashes_and_a_bill(dist):
    bill = json.loads((dist / "llm_backend-0.1.0.cdx.json").read_text())

    assert {path.name for path in dist.iterdir()} - {"notes"} == {
        "SHA256SUMS",
        "llm_backend-0.1.0.tar.gz",
        "llm_backend-0.1.0-py3-none-any.whl",
        "llm_backend-0.1.0-cp311-cp311-manylinux_2_35_x86_64.whl",
        "llm_backend-0.1.0.cdx.json",
        ENGINE.replace("-linux_", "-manylinux_2_35_"),
    }
    assert bill["bomFormat"] == "CycloneDX"
    assert any(pin.startswith("llama-cpp-python==") for pin in bill["components"])
    assert any(pin.startswith("starlette==") for pin in bill["components"])


def test_hashes_are_those_of_the_released_files(dist):
    sums = dict(line.split("  ")[::-1] for line in (dist / "SHA256SUMS").read_text().splitlines())

    assert sums == {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in dist.iterdir()
        if path.name not in {"SHA256SUMS", "notes"}
    }


def test_engines_wheel_has_its_libraries_once(dist):
    with zipfile.ZipFile(next(dist.glob("llama_cpp_python-*.whl"))) as wheel:
        files = {name for name in wheel.namelist() if not name.endswith("/")}

    assert files == {"llama_cpp/lib/libllama.so", "llama_cpp/__init__.py"}


def test_other_files_of_the_folder_stay(dist):
    assert (dist / "notes" / "kept.txt").read_text() == "kept"


def test_wheel_without_a_policy_ends_the_release(release, tmp_path):
    tools = make_tools(tmp_path / "tools", policy="linux")

    with pytest.raises(SystemExit, match="meets no manylinux policy"):
        release.make_portable(make_engine(tmp_path), tmp_path / "portable", tools)


def test_failing_tool_ends_the_release(release, tmp_path):
    tools = make_tools(tmp_path / "tools", policy="linux")
    (tools / "auditwheel").write_text("#!/bin/sh\nexit 1\n")

    with pytest.raises(SystemExit, match="auditwheel failed; nothing was released"):
        release.make_portable(make_engine(tmp_path), tmp_path / "portable", tools)
