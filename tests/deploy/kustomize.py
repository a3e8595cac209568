"""Renders a kustomization with the real tool, as `kubectl apply -k` would."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import yaml

__all__ = ["Manifest", "Missing", "render"]

Manifest = dict[str, Any]


class Missing(Exception):
    """Neither kustomize nor a kubectl that carries a current one can be found."""


def render(folder: Path) -> list[Manifest]:
    """The objects of the kustomization in `folder`; a warning of the tool is an error."""
    done = subprocess.run([*_command(), str(folder)], capture_output=True, text=True)
    assert not done.returncode, done.stderr
    assert not done.stderr, f"kustomize warns: {done.stderr}"
    return list(yaml.safe_load_all(done.stdout))


def _command() -> list[str]:
    if kustomize := shutil.which("kustomize"):
        return [kustomize, "build"]
    if not (kubectl := shutil.which("kubectl")):
        raise Missing("Install kubectl (1.27 or newer) or kustomize (5 or newer) and run again.")
    version = subprocess.check_output([kubectl, "version", "--client", "-o", "json"])
    if "kustomizeVersion" not in json.loads(version):
        raise Missing(f"{kubectl} carries an outdated kustomize: kubectl 1.27 or newer is needed.")
    return [kubectl, "kustomize"]
