"""The image, built once."""

import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.image.podman import Podman

ROOT = Path(__file__).resolve().parents[2]
IMAGE = "localhost/llm-backend:0.1.0"


@pytest.fixture(scope="session")
def podman(request: pytest.FixtureRequest) -> Iterator[Podman]:
    """Podman with the images that earlier runs have built; containers of this run are removed."""
    if not request.config.getoption("--image"):
        pytest.skip("`make test-image` runs it: compiling llama.cpp takes minutes.")
    podman = Podman(ROOT / "build" / "containers")
    podman.make_base_image()
    yield podman
    for what in ("pod", "container"):
        podman.run(what, "rm", "--all", "--force", check=False)
    podman.run("volume", "rm", "--all", "--force", check=False)


@pytest.fixture(scope="session")
def image(podman: Podman) -> str:
    """The image of this checkout; podman keeps the layers for the next run."""
    start = time.monotonic()
    podman.build(ROOT, IMAGE, "--target=runtime")
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
