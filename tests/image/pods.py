"""Kubernetes' manifests with the changes that podman needs to run them on one machine.

podman 4.3 has no Services and no fields of the cluster, takes a Secret from its own store and a
claim only once. Pods use the machine's network: a container listens where its environment says.
"""

import copy
import json
from base64 import b64encode
from typing import Any

import yaml

from tests.deploy.kustomize import Manifest

__all__ = ["local_claims", "local_pods", "secret"]


def local_claims(manifests: list[Manifest]) -> str:
    """The claims of volumes as YAML for `podman kube play`."""
    return yaml.safe_dump_all(_found(manifests, {"PersistentVolumeClaim"}))


def local_pods(manifests: list[Manifest], images: dict[str, str], **environment: str) -> str:
    """Deployments and their settings as YAML for `podman kube play`.

    `images` replaces the images of containers by their name, `environment` adds variables to all.
    """
    found = _found(manifests, {"Deployment", "ConfigMap"})
    for one in found:
        if one["kind"] == "Deployment":
            _change(one["spec"]["template"]["spec"], images, environment)
    return yaml.safe_dump_all(found)


def _found(manifests: list[Manifest], kinds: set[str]) -> list[Manifest]:
    found = [copy.deepcopy(one) for one in manifests if one["kind"] in kinds]
    for one in found:
        del one["metadata"]["namespace"]
    return found


def _change(pod: Any, images: dict[str, str], environment: dict[str, str]) -> None:
    pod["hostNetwork"] = True
    for container in pod["containers"]:
        container["image"] = images[container["name"]]
        container.pop("ports")
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            container.pop(probe)  # podman asks them by curl, from inside
        container["env"] = [
            entry for entry in container["env"]
            if "resourceFieldRef" not in entry.get("valueFrom", {})
            and entry["name"] not in environment
        ] + [{"name": name, "value": value} for name, value in environment.items()]  # fmt: skip


def secret(**values: str) -> str:
    """A secret's data in the form in which podman's `kube play` finds its keys."""
    return json.dumps({name: b64encode(value.encode()).decode() for name, value in values.items()})
