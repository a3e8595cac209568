"""Checks a manifest against the schema of its kind: Kubernetes' own, or a custom resource's."""

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

from jsonschema_rs import Draft7Validator, Draft202012Validator, Registry
from kubernetes_validate.utils import all_versions, schema_contents

from tests.deploy.kustomize import Manifest

__all__ = ["CUSTOM_RESOURCES", "SUPPORTED_VERSIONS", "check"]

FOLDER = Path(__file__).parent / "custom_resources"
CUSTOM_RESOURCES = sorted(path.stem for path in FOLDER.glob("*.json"))
SUPPORTED_VERSIONS = [*dict.fromkeys(all_versions())][-3:]  # as many as Kubernetes itself supports


def check(manifest: Manifest, version: str = SUPPORTED_VERSIONS[-1]) -> None:
    """Raises `jsonschema_rs.ValidationError` for an invalid manifest or an unknown field.

    `version` is that of Kubernetes; a custom resource has one schema for all of them.
    """
    if manifest["kind"] in CUSTOM_RESOURCES:
        validator: Any = _custom(manifest["kind"])
    else:
        validator = _own(manifest["kind"], manifest["apiVersion"], version)
    validator.validate(manifest)


@cache
def _custom(kind: str) -> Draft7Validator:
    return Draft7Validator(json.loads((FOLDER / f"{kind}.json").read_text()))


@cache
def _own(kind: str, api_version: str, version: str) -> Draft202012Validator:
    group = re.sub(r"^([^./]*)(\.[^/]*)?/", r"\1-", api_version)
    schema = _file(f"{kind.lower()}-{group}.json", version)
    # each call of `kubernetes_validate.validate` would read all definitions anew, for 0.2 s
    return Draft202012Validator(schema, registry=_definitions(version))


@cache
def _definitions(version: str) -> Registry:
    contents = _file("_definitions.json", version)
    return Registry([(contents["$id"], contents)])


def _file(name: str, version: str) -> Any:
    return schema_contents(f"kubernetes-json-schema/v{version}-local-strict/{name}", version)
