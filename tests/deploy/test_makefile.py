"""`make image` takes the container tool that the machine has."""

import shutil
import subprocess
from pathlib import Path

import pytest

NEEDED = ("make", "sh", "sed", "expand")


def make_image(
    root: Path, folder: Path, *tools: str, variables: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[str]:
    """Runs `make image` where only these container tools are; each prints its name and words."""
    for name in NEEDED:
        (folder / name).symlink_to(shutil.which(name) or pytest.fail(f"{name} is missing"))
    for name in tools:
        (folder / name).write_text(f'#!/bin/sh\necho "{name} ran: $*"\n')
        (folder / name).chmod(0o755)
    return subprocess.run(
        ["make", "image", *variables], cwd=root, env={"PATH": str(folder)}, capture_output=True,
        text=True,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("tools", "taken"),
    [(["podman"], "podman"), (["docker"], "docker"), (["docker", "podman"], "podman")],
)
def test_image_is_built_with_the_tool_that_is_there(root, tmp_path, tools, taken):
    made = make_image(root, tmp_path, *tools)

    assert made.returncode == 0, made.stderr
    assert f"{taken} ran: build --target runtime --tag llm-backend:" in made.stdout


def test_image_with_extras_is_another_tag(root, tmp_path):
    asked = ("TARGET=cuda", "AUDIO=1", "DRAW=1")
    made = make_image(root, tmp_path, "podman", variables=asked)

    tag, arguments = made.stdout.rpartition("llm-backend:")[2].split(maxsplit=1)
    assert tag.endswith("-cuda-audio-draw")
    assert arguments.strip() == "--build-arg AUDIO=1 --build-arg DRAW=1 ."


def test_image_without_a_container_tool_names_what_lacks(root, tmp_path):
    made = make_image(root, tmp_path)

    assert made.returncode != 0
    assert "neither podman nor docker is on the PATH" in made.stderr
