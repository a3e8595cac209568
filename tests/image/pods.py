"""Kubernetes' manifests with the changes that podman needs to run them on one machine.

podman 4.3 has no Services, no StatefulSets and no fields of the cluster, takes a Secret from its
own store and a claim only once. Pods use the machine's network: a container listens where its
environment says. A StatefulSet becomes a Deployment with the claim of its first pod.
"""

import copy
import json
from base64 import b64encode
from itertools import chain
from typing import Any

import yaml

from tests.deploy.kustomize import Manifest

__all__ = ["local_claims", "local_pods", "secret"]


def local_claims(manifests: list[Manifest]) -> str:
    """The claims of volumes as YAML for `podman kube play`."""
    sets = (_claims_of_set(one) for one in manifests if one["kind"] == "StatefulSet")
    claims = _found(manifests, {"PersistentVolumeClaim"})
    return yaml.safe_dump_all([*claims, *chain.from_iterable(sets)])


def local_pods(
    manifests: list[Manifest], images: dict[str, str], only: str = "", **environment: str
) -> str:
    """Workloads and their settings as YAML for `podman kube play`.

    `images` replaces the images of containers by their name, `environment` adds variables to all.
    `only` is the name of the one workload to play; all if empty.
    """
    found = _found(manifests, {"Deployment", "StatefulSet", "ConfigMap"})
    found = [
        one for one in found
        if one["kind"] == "ConfigMap" or only in ("", one["metadata"]["name"])
    ]  # fmt: skip
    for one in found:
        if one["kind"] == "StatefulSet":
            _change_set(one)
        if one["kind"] == "ConfigMap":  # podman has it win over a container's own variables
            one["data"] = {name: environment.get(name, one["data"][name]) for name in one["data"]}
        if one["kind"] == "Deployment":
            _change(one["spec"]["template"]["spec"], images, environment)
    return yaml.safe_dump_all(found)


def _found(manifests: list[Manifest], kinds: set[str]) -> list[Manifest]:
    found = [copy.deepcopy(one) for one in manifests if one["kind"] in kinds]
    for one in found:
        del one["metadata"]["namespace"]
    return found


def _claims_of_set(stateful_set: Manifest) -> list[Manifest]:
    name = stateful_set["metadata"]["name"]
    kind = {"apiVersion": "v1", "kind": "PersistentVolumeClaim"}
    return [
        {**kind, "metadata": {"name": f"{one['metadata']['name']}-{name}-0"}, "spec": one["spec"]}
        for one in stateful_set["spec"]["volumeClaimTemplates"]
    ]


def _change_set(stateful_set: Manifest) -> None:
    claims = [one["metadata"]["name"] for one in _claims_of_set(stateful_set)]
    spec = stateful_set["spec"]
    del spec["serviceName"]
    templates = spec.pop("volumeClaimTemplates")
    spec["template"]["spec"]["volumes"] += [
        {"name": template["metadata"]["name"], "persistentVolumeClaim": {"claimName": claim}}
        for template, claim in zip(templates, claims, strict=True)
    ]
    stateful_set["kind"] = "Deployment"


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
