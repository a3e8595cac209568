"""Schemas of custom resources: they refuse what a cluster would refuse."""

import copy
import re
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import yaml

from tests.deploy.conftest import ROOT
from tests.deploy.kustomize import Manifest
from tests.deploy.schemas import CUSTOM_RESOURCES, check

README = Path(__file__).parent / "custom_resources" / "README.md"
FOLDERS = ("overlays/fleet", "components", "monitoring")


def written(kind: str) -> Manifest:
    """The manifest of that kind in k8s/."""
    files = [file for folder in FOLDERS for file in (ROOT / "k8s" / folder).rglob("*.yaml")]
    documents = [one for file in files for one in yaml.safe_load_all(file.read_text())]
    (found,) = [one for one in documents if isinstance(one, dict) and one.get("kind") == kind]
    return found


def changed(manifest: Manifest, path: tuple[str | int, ...], value: Any) -> Manifest:
    """A copy with another value at a path."""
    copied = copy.deepcopy(manifest)
    place: Any = copied
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    return copied


@pytest.mark.parametrize("kind", CUSTOM_RESOURCES)
def test_custom_resource_is_valid_and_may_have_no_unknown_field(kind):
    manifest = written(kind)

    check(manifest)
    for path in (("spec", "unheard"), ("unheard",)):
        with pytest.raises(jsonschema_rs.ValidationError, match="unheard"):
            check(changed(manifest, path, 1))
    with pytest.raises(jsonschema_rs.ValidationError):
        check(changed(manifest, ("apiVersion",), "example.com/v1"))


@pytest.mark.parametrize(
    ("kind", "path", "value"),
    [
        ("HTTPRoute", ("spec", "rules", 0, "matches", 0, "path", "type"), "Glob"),
        ("HTTPRoute", ("spec", "rules", 0, "timeouts", "request"), "an hour"),
        ("InferencePool", ("spec", "targetPorts", 0, "number"), 70000),
        ("InferencePool", ("spec", "endpointPickerRef", "failureMode"), "FailSafe"),
        ("ScaledObject", ("spec", "minReplicaCount"), "two"),
        ("ScaledObject", ("spec", "triggers", 0, "type"), None),
        ("ServiceMonitor", ("spec", "endpoints", 0, "interval"), "half a minute"),
        ("ServiceMonitor", ("spec", "endpoints", 0, "port"), 8000),
        ("PrometheusRule", ("spec", "groups", 0, "rules", 0, "for"), "soon"),
    ],
)
def test_custom_resource_may_have_no_wrong_value(kind, path, value):
    with pytest.raises(jsonschema_rs.ValidationError):
        check(changed(written(kind), path, value))


def test_kubernetes_own_object_may_have_no_unknown_field():
    deployment = yaml.safe_load((ROOT / "k8s/base/deployment.yaml").read_text())

    check(deployment)
    resources = ("spec", "template", "spec", "containers", 0, "resources")
    with pytest.raises(jsonschema_rs.ValidationError, match="cpus"):
        check(changed(deployment, (*resources, "cpus"), {}))


def test_every_schema_names_its_source(root):
    readme = README.read_text()

    assert sorted(re.findall(r"`([A-Z]\w+)`", readme)) == CUSTOM_RESOURCES
    for kind in CUSTOM_RESOURCES:
        comment = README.with_name(f"{kind}.json").read_text().split('"')[3]
        repository, version = re.findall(r"github.com/([\w-]+/[\w-]+)/blob/(v[\d.]+)/", comment)[0]
        assert f"(https://github.com/{repository}) {version}" in readme
