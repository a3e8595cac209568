"""Runs the Tiltfile in a Starlark interpreter; stand-ins note what it asks of Tilt.

Only the functions below exist: one that is not here (`local`, `read_file`, ...) fails the run.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import starlark

__all__ = ["TiltRequests", "run"]

PRELUDE = "os = struct(getenv = _getenv, path = struct(exists = _exists))"


@dataclass(frozen=True, kw_only=True)
class TiltRequests:
    """Requests of a Tiltfile, by kind."""

    images: list[dict[str, Any]] = field(default_factory=list)
    kustomizations: list[str] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    objects: list[dict[str, Any]] = field(default_factory=list)
    resources: dict[str, dict[str, Any]] = field(default_factory=dict)


def run(
    tiltfile: Path, environment: Mapping[str, str], beside: Collection[str] = ()
) -> TiltRequests:
    """Runs `tiltfile` with `environment` and existing paths; returns its requests."""
    tilt = TiltRequests()
    module = starlark.Module()
    for name, function in {**_stand_ins(tilt), **_machine(environment, beside)}.items():
        module.add_callable(name, function)
    names = starlark.Globals.extended_by([starlark.LibraryExtension.StructType])
    _evaluate(module, names, "prelude", PRELUDE)
    _evaluate(module, names, tiltfile.name, tiltfile.read_text(encoding="utf-8"))
    return tilt


def _stand_ins(tilt: TiltRequests) -> dict[str, Any]:
    def docker_build(ref: str, context: str, **options: Any) -> None:
        tilt.images.append({"ref": ref, "context": context, **options})

    def sync(local_path: str, remote_path: str) -> dict[str, str]:
        return {"sync": local_path, "to": remote_path}

    def kustomize(path: str) -> dict[str, str]:
        return {"kustomize": path}

    def encode_yaml(value: dict[str, Any]) -> dict[str, Any]:
        return {"yaml": value}

    def k8s_yaml(source: str | dict[str, Any]) -> None:
        if isinstance(source, str):
            tilt.files.append(source)
        elif "kustomize" in source:
            tilt.kustomizations.append(source["kustomize"])
        else:
            tilt.objects.append(source["yaml"])

    def k8s_resource(workload: str, **options: Any) -> None:
        tilt.resources[workload] = options

    functions = (docker_build, sync, kustomize, encode_yaml, k8s_yaml, k8s_resource)
    return {function.__name__: function for function in functions}


def _machine(environment: Mapping[str, str], beside: Collection[str]) -> dict[str, Any]:
    """The machine that Tilt runs on, as the Tiltfile sees it."""

    def getenv(name: str, default: str | None = None) -> str | None:
        return environment.get(name, default)

    def exists(path: str) -> bool:
        return path in beside

    return {"_getenv": getenv, "_exists": exists}


def _evaluate(module: Any, names: Any, title: str, source: str) -> None:
    dialect = starlark.Dialect.extended()  # as Tilt does, allow `if` and `for` at the top level
    dialect.enable_top_level_stmt = True
    starlark.eval(module, starlark.parse(title, source, dialect), names)
