"""Questions to rendered manifests: an object by kind and name, a pod, a container, its settings."""

from collections.abc import Iterator
from typing import Any

from tests.deploy.kustomize import Manifest

__all__ = [
    "container",
    "environment",
    "objects",
    "one",
    "pod",
    "pods",
    "resolve",
    "secret_keys",
    "workloads",
]

SECRET_VALUE = "sk-from-a-secret"


def objects(manifests: list[Manifest], kind: str) -> dict[str, Manifest]:
    """The objects of a kind by name."""
    return {one["metadata"]["name"]: one for one in manifests if one["kind"] == kind}


def one(manifests: list[Manifest], kind: str, name: str) -> Manifest:
    """The object of that kind and name."""
    return objects(manifests, kind)[name]


def workloads(manifests: list[Manifest]) -> dict[str, Manifest]:
    """Everything that serves, by name: deployments and stateful sets."""
    return objects(manifests, "Deployment") | objects(manifests, "StatefulSet")


def pods(manifests: list[Manifest]) -> dict[str, Any]:
    """The pod specification of everything that runs, jobs too, by the workload's name."""
    running = workloads(manifests) | objects(manifests, "Job")
    return {name: workload["spec"]["template"]["spec"] for name, workload in running.items()}


def pod(manifests: list[Manifest], name: str) -> Any:
    """The pod specification of the workload of that name."""
    return pods(manifests)[name]


def container(manifests: list[Manifest], name: str) -> Any:
    """The only container of the workload of that name."""
    (only,) = pod(manifests, name)["containers"]
    return only


def environment(manifests: list[Manifest], name: str) -> dict[str, str]:
    """The environment variables of the container of the workload `name`."""
    its = container(manifests, name)
    found: dict[str, str] = {}
    for source in its.get("envFrom", []):
        found |= one(manifests, "ConfigMap", source["configMapRef"]["name"])["data"]
    return found | {entry["name"]: resolve(entry, its) for entry in its.get("env", [])}


def resolve(entry: Any, its: Any) -> str:
    """The value of one entry of `env`: written down, from a secret, or a limit of the container."""
    if "value" in entry:
        return entry["value"]
    source = entry["valueFrom"]
    if "resourceFieldRef" in source:
        kind, resource = source["resourceFieldRef"]["resource"].split(".")
        return its["resources"][kind][resource]
    assert "secretKeyRef" in source, f"{entry['name']} comes from where no test looks: {source}"
    return SECRET_VALUE


def secret_keys(its: Any) -> Iterator[tuple[str, str]]:
    """The secrets that a container reads, as name and key."""
    for entry in its.get("env", []):
        if reference := entry.get("valueFrom", {}).get("secretKeyRef"):
            yield reference["name"], reference["key"]
