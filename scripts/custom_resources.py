"""Writes the schemas of custom resources that the manifests of k8s/ use, for tests/deploy.

    python scripts/custom_resources.py FOLDER

FOLDER has a checkout of each repository of `SOURCES`, at its version. A schema keeps what the
validation of an object's fields needs: descriptions and rules in CEL are left out.
"""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

SCHEMAS = Path(__file__).resolve().parent.parent / "tests" / "deploy" / "custom_resources"
LICENCE = "Apache-2.0"
DROPPED = {"description", "default", "example", "title"}


@dataclass(frozen=True)
class Source:
    """Definition of a custom resource in a repository."""

    repository: str
    version: str
    path: str
    served: str


GATEWAY = "gateway.networking.k8s.io"
INFERENCE = "inference.networking.k8s.io"
OPERATOR = "example/prometheus-operator-crd/monitoring.coreos.com"
SOURCES = (
    Source("kubernetes-sigs/gateway-api", "v1.6.1",
           f"config/crd/standard/{GATEWAY}_httproutes.yaml", "v1"),
    Source("kubernetes-sigs/gateway-api-inference-extension", "v1.6.0",
           f"config/crd/bases/{INFERENCE}_inferencepools.yaml", "v1"),
    Source("kedacore/keda", "v2.20.2", "config/crd/bases/keda.sh_scaledobjects.yaml", "v1alpha1"),
    Source("prometheus-operator/prometheus-operator", "v0.93.0",
           f"{OPERATOR}_servicemonitors.yaml", "v1"),
    Source("prometheus-operator/prometheus-operator", "v0.93.0",
           f"{OPERATOR}_prometheusrules.yaml", "v1"),
)  # fmt: skip


def main() -> int:
    checkouts = Path(sys.argv[1])
    for source in SOURCES:
        checkout = checkouts / source.repository.rpartition("/")[2]
        definition = yaml.safe_load((checkout / source.path).read_text(encoding="utf-8"))
        kind = definition["spec"]["names"]["kind"]
        written = SCHEMAS / f"{kind}.json"
        text = json.dumps(
            describe_version(definition, source), separators=(",", ":"), sort_keys=True
        )
        written.write_text(f"{text}\n", encoding="utf-8")
        print(f"{written.name}: {len(text)} bytes")
    return 0


def describe_version(definition: Any, source: Source) -> dict[str, Any]:
    """The strict JSON schema of a definition's version, and where it comes from."""
    spec = definition["spec"]
    (version,) = [one for one in spec["versions"] if one["name"] == source.served]
    schema = strict(version["schema"]["openAPIV3Schema"])
    schema["properties"]["metadata"] = {"type": "object"}
    schema["properties"]["apiVersion"] = {"const": f"{spec['group']}/{source.served}"}
    schema["properties"]["kind"] = {"const": spec["names"]["kind"]}
    schema["required"] = sorted({*schema.get("required", ()), "apiVersion", "kind", "metadata"})
    repository = f"https://github.com/{source.repository}"
    comment = f"{repository}/blob/{source.version}/{source.path}, {LICENCE}, shortened"
    return {"$comment": comment, "$schema": "http://json-schema.org/draft-07/schema#", **schema}


def strict(schema: Any) -> dict[str, Any]:
    """A schema of a definition as a JSON schema that refuses unknown fields."""
    kept = {
        key: value
        for key, value in schema.items()
        if key not in DROPPED and not key.startswith("x-kubernetes-")
    }
    if "properties" in kept:
        kept["properties"] = {name: strict(one) for name, one in kept["properties"].items()}
        if not schema.get("x-kubernetes-preserve-unknown-fields"):
            kept.setdefault("additionalProperties", False)
    for key in ("items", "additionalProperties", "not"):
        if isinstance(kept.get(key), dict):
            kept[key] = strict(kept[key])
    for key in ("allOf", "anyOf", "oneOf"):
        if key in kept:
            kept[key] = [part(one) for one in kept[key]]
    if "(?" in kept.get("pattern", ""):
        del kept["pattern"]  # JSON schemas' expressions have no flags
    if kept.pop("nullable", False):
        kept = {"anyOf": [kept, {"type": "null"}]}
    return kept


def part(schema: Any) -> dict[str, Any]:
    """A part of a combination (`allOf`, `anyOf`): the whole schema decides which fields may be."""
    return {key: value for key, value in schema.items() if key not in DROPPED}


if __name__ == "__main__":
    sys.exit(main())
