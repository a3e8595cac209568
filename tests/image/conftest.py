"""The image, built once, with the wheel of llama.cpp that this environment was made with."""

import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.image.podman import Podman

__all__ = ["IMAGE", "ROOT", "Wheels"]

ROOT = Path(__file__).resolve().parents[2]
IMAGE = "localhost/llm-backend:0.1.0"

Wheels = tuple[str, ...]


@pytest.fixture(scope="session")
def podman(request: pytest.FixtureRequest) -> Iterator[Podman]:
    """Podman with the images that earlier runs have built; containers of this run are removed."""
    if not request.config.getoption("--image"):
        pytest.skip("`make test-image` runs it: building the image takes minutes.")
    is_portable = request.config.getoption("--portable-image")
    podman = Podman(ROOT / "build" / ("containers-portable" if is_portable else "containers"))
    if reason := podman.missing():
        sys.stderr.write(f"\nNOTHING OF THE IMAGE IS TESTED: {reason}\n")
        pytest.skip(reason)
    podman.make_base_image()
    podman.remove_all()  # of a run that was killed
    yield podman
    podman.remove_all()


@pytest.fixture(scope="session")
def wheels(request: pytest.FixtureRequest) -> Wheels:
    """The option of a build that gives it the wheel of llama.cpp, so that it compiles none."""
    if request.config.getoption("--portable-image"):
        return ()
    command = [sys.executable, ROOT / "scripts" / "build_llama.py"]
    wheel = Path(subprocess.check_output(command, text=True).strip())
    return (f"--volume={wheel.parent}:/wheels:ro",)


@pytest.fixture(scope="session")
def image(podman: Podman, wheels: Wheels) -> str:
    """The image of this checkout; podman keeps the layers for the next run."""
    start = time.monotonic()
    podman.build(ROOT, IMAGE, "--target=runtime", *wheels)
    size = podman.inspect(IMAGE)["Size"] / 1e6
    sys.stderr.write(f"\nimage: {size:.0f} MB, built in {time.monotonic() - start:.0f} s\n")
    return IMAGE


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of this checkout, which a test may change."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    files = subprocess.check_output(command, cwd=ROOT, text=True)
    for name in files.rstrip("\0").split("\0"):
        if (ROOT / name).is_file():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, tmp_path / name)
    return tmp_path
