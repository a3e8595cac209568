"""Helm chart: renders what kustomize renders of the base, of production and of the components."""

import json
import os
import re
from pathlib import Path

import pytest
import yaml
from hatchling.builders.sdist import SdistBuilder

from tests.deploy.conftest import deployed_alone
from tests.deploy.helm import helm, notes, template
from tests.deploy.kustomize import Manifest, Missing, render
from tests.deploy.schemas import SUPPORTED_VERSIONS, check
from tests.deploy.workload import container, objects, one, pod
from tests.missing import missing

SERVER = "llm-backend"
SETTINGS = f"{SERVER}-settings"
SHARED = {
    "LLM_BACKEND_DATABASE_URL": "postgresql://db/x",
    "LLM_BACKEND_OBJECT_STORE_URL": "s3://bucket",
    "LLM_BACKEND_QDRANT_URL": "http://qdrant:6333",
}


@pytest.fixture(scope="session")
def chart(root) -> Path:
    """The chart's folder."""
    try:
        helm("version")
    except Missing as error:
        missing(str(error))
    return root / "k8s" / "chart"


@pytest.fixture(scope="module")
def production_settings() -> dict[str, str]:
    """The settings of the production overlay."""
    configs = objects(deployed_alone("overlays/prod"), "ConfigMap")
    ((_, config),) = configs.items()
    return config["data"]


def comparable(manifests: list[Manifest]) -> dict[str, Manifest]:
    """Objects by kind and name, without what each tool adds for itself."""
    found = {}
    for manifest in yaml.safe_load_all(plain(yaml.safe_dump_all(manifests))):
        if manifest["kind"] == "Deployment":
            made = manifest["spec"]["template"]["metadata"]
            made.setdefault("annotations", {}).pop("checksum/settings", None)
            for each in manifest["spec"]["template"]["spec"]["containers"]:
                each.pop("imagePullPolicy", None)
                for part in ("env", "volumeMounts"):
                    each[part].sort(key=lambda entry: entry["name"])
        found[f"{manifest['kind']} {manifest['metadata']['name']}"] = manifest
    return found


def plain(text: str) -> str:
    """Drops the hash that kustomize appends to the name of the settings."""
    names = {word for word in text.split() if word.startswith(f"{SETTINGS}-")}
    for name in names:
        text = text.replace(name, SETTINGS)
    return text


def with_component(root: Path, folder: Path, name: str) -> list[Manifest]:
    """The production overlay with a component."""
    k8s = os.path.relpath(root / "k8s", folder)
    kustomization = {
        "namespace": SERVER,
        "resources": [f"{k8s}/overlays/prod"],
        "components": [f"{k8s}/components/{name}"],
    }
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
    return render(folder)


def test_helm_lint_finds_nothing(chart):
    assert "0 chart(s) failed" in helm("lint", "--strict", str(chart))


def test_chart_without_values_is_the_base(chart):
    base = comparable(deployed_alone("base"))
    del base[f"Namespace {SERVER}"]

    assert comparable(template(chart)) == base


def test_chart_with_shared_stores_is_the_production_overlay(chart, production_settings):
    values = {
        "settings": production_settings,
        "autoscaling": {"enabled": True},
        "disruptionBudget": True,
        "networkPolicy": {"enabled": True},
    }
    production = comparable(deployed_alone("overlays/prod"))
    names = production["NetworkPolicy names"]["spec"]["egress"]
    production[f"NetworkPolicy {SERVER}"]["spec"]["egress"] += names

    rendered = comparable(template(chart, values))
    left_out = {name.split()[1] for name in production.keys() - rendered.keys()}
    assert rendered == {name: production[name] for name in rendered}
    assert left_out == {
        SERVER,  # the namespace
        *("llm-backend-postgresql", "llm-backend-qdrant", "llm-backend-pull-model"),
        *("default-deny", "names", "stores", "pull-model", "chatbot-ui"),
    }


@pytest.mark.parametrize(
    ("component", "kind", "values"),
    [
        ("service-monitor", "ServiceMonitor", {"serviceMonitor": {"enabled": True}}),
        ("queue-autoscaler", "HorizontalPodAutoscaler", {"autoscaling": {"by": "queue"}}),
        ("keda", "ScaledObject", {"autoscaling": {"by": "keda"}}),
    ],
)
def test_chart_has_what_components_add(
    chart, root, tmp_path, production_settings, component, kind, values
):
    overlay = with_component(root, tmp_path, component)
    autoscaling = {"enabled": True, **values.pop("autoscaling", {})}

    rendered = template(
        chart, {"settings": production_settings, "autoscaling": autoscaling, **values}
    )
    assert one(rendered, kind, SERVER) == one(overlay, kind, SERVER)
    for manifest in (*rendered, *overlay):
        check(manifest)
    scalers = objects(overlay, "HorizontalPodAutoscaler") | objects(overlay, "ScaledObject")
    assert scalers.keys() == {SERVER}
    assert objects(rendered, "HorizontalPodAutoscaler").keys() == (
        objects(overlay, "HorizontalPodAutoscaler").keys()
    )


@pytest.mark.parametrize(
    ("value", "text"), [(67108864, "67108864"), (30.5, "30.5"), (True, "true"), ("8 GB", "8 GB")]
)
def test_values_of_settings_are_written_as_given(chart, value, text):
    rendered = template(chart, {"settings": {"LLM_BACKEND_BODY_LIMIT_BYTES": value}})
    ((_, config),) = objects(rendered, "ConfigMap").items()

    assert config["data"]["LLM_BACKEND_BODY_LIMIT_BYTES"] == text


@pytest.mark.parametrize(("grace_s", "least_s"), [("20", 40), ("120.5", 136)])
@pytest.mark.parametrize("more", [{}, {"replicas": 2}])
def test_running_streams_finish_before_the_pod_is_killed(chart, more, grace_s, least_s):
    given = {"LLM_BACKEND_SHUTDOWN_GRACE_S": grace_s, "LLM_BACKEND_SHUTDOWN_DELAY_S": "5"}
    rendered = template(chart, {"settings": {**SHARED, **given}, **more})

    assert pod(rendered, SERVER)["terminationGracePeriodSeconds"] >= least_s


def test_media_are_a_component_or_values(chart, root, tmp_path, production_settings):
    overlay = with_component(root, tmp_path, "media")
    ((_, config),) = objects(overlay, "ConfigMap").items()
    image = container(overlay, SERVER)["image"]

    values = {"replicas": 2, "image": {"tag": "0.1.0-audio-draw"}, "settings": config["data"]}
    assert image == container(template(chart, values), SERVER)["image"]
    assert image == container(overlay, "llm-backend-pull-model")["image"]
    assert dict(config["data"].items() - production_settings.items()) == {
        "LLM_BACKEND_SERVE_MODELS_FOLDER": "true"
    }


def test_alerts_are_a_value_of_the_chart(chart, root):
    plain = yaml.safe_load((root / "k8s/monitoring/prometheus-rule.yaml").read_text())
    address = "https://wiki.example/runbook"
    values = {"enabled": True, "labels": {"release": "prometheus"}, "runbook": address}

    rendered = template(chart, {"prometheusRule": values})
    rule = one(rendered, "PrometheusRule", SERVER)
    check(rule)
    for each in plain["spec"]["groups"][0]["rules"]:
        named = each["annotations"]["runbook_url"].replace("docs/runbook.md", address)
        each["annotations"]["runbook_url"] = named
    assert rule["spec"] == plain["spec"]
    assert rule["metadata"]["labels"] == {"release": "prometheus"}
    assert objects(template(chart), "PrometheusRule") == {}


def test_packed_chart_renders_the_same(chart, tmp_path):
    helm("package", str(chart), "--destination", str(tmp_path))

    (packed,) = tmp_path.iterdir()
    assert template(packed) == template(chart)


def test_names_of_another_release_are_its_own(chart):
    rendered = template(chart, release="second")

    names = {one["metadata"]["name"] for one in rendered}
    assert all(name.startswith("second-llm-backend") for name in names)
    service = one(rendered, "Service", "second-llm-backend")["spec"]["selector"]
    deployment = one(rendered, "Deployment", "second-llm-backend")["spec"]
    assert service == deployment["selector"]["matchLabels"]
    assert service == deployment["template"]["metadata"]["labels"]
    for volume in pod(rendered, "second-llm-backend")["volumes"]:
        if claim := volume.get("persistentVolumeClaim"):
            assert claim["claimName"] in objects(rendered, "PersistentVolumeClaim")


def test_values_reach_the_objects(chart):
    secret = {"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": {"name": "hub", "key": "token"}}}
    values = {
        "image": {"repository": "registry.example/llm", "tag": "1", "pullSecrets": ["registry"]},
        "settings": {"LLM_BACKEND_MODELS": "/models/a.gguf", "LLM_BACKEND_QUEUE_LIMIT": 10},
        "env": [secret],
        "resources": {"limits": {"memory": "16Gi"}},
        "storage": {"data": {"size": "1Gi", "storageClass": "fast"}},
        "nodeSelector": {"disk": "ssd"},
        "tolerations": [{"key": "llm", "operator": "Exists"}],
        "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
    }

    rendered = template(chart, values)
    for version in SUPPORTED_VERSIONS:
        for manifest in rendered:
            check(manifest, version)
    server = container(rendered, SERVER)
    config = one(rendered, "ConfigMap", SETTINGS)["data"]
    claim = one(rendered, "PersistentVolumeClaim", f"{SERVER}-data")["spec"]
    assert server["image"] == "registry.example/llm:1"
    assert server["env"][-1] == secret
    assert server["resources"] == {"limits": {"memory": "16Gi"}}
    assert config["LLM_BACKEND_MODELS"] == "/models/a.gguf"
    assert config["LLM_BACKEND_QUEUE_LIMIT"] == "10"
    assert config["LLM_BACKEND_ALIASES"] == "gpt-3.5-turbo"
    assert (claim["storageClassName"], claim["resources"]) == (
        "fast",
        {"requests": {"storage": "1Gi"}},
    )
    assert pod(rendered, SERVER)["imagePullSecrets"] == [{"name": "registry"}]
    assert pod(rendered, SERVER)["nodeSelector"] == {"disk": "ssd"}
    assert one(rendered, "ServiceMonitor", SERVER)["metadata"]["labels"]["release"] == "prometheus"


def test_changed_settings_restart_the_server(chart):
    def annotations(**settings):
        deployment = one(template(chart, {"settings": settings}), "Deployment", SERVER)
        return deployment["spec"]["template"]["metadata"]["annotations"]

    assert annotations(LLM_BACKEND_MODELS="none") != annotations()


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"replicas": 2}, "Several servers need stores that they share"),
        ({"replicas": 0}, "replicas"),
        ({"replica": 2}, "replica"),
        ({"settings": {"LLM_BACKEND_API_KEYS": "sk-x"}}, "LLM_BACKEND_API_KEYS"),
        ({"settings": {"LLM_BACKEND_PORT": 9000}}, "LLM_BACKEND_PORT"),
        ({"autoscaling": {"by": "requests"}}, "by"),
        ({"autoscaling": {"minReplicas": 5, "maxReplicas": 4}}, "minReplicas is 5, above"),
        ({"storage": {"data": {"size": "ten"}}}, "size"),
        ({"storage": {"data": {"size": None}}}, "size"),
        ({"storage": None}, "storage"),
        ({"image": {"repository": None}}, "repository"),
        ({"replicas": 2, "settings": {**SHARED, "LLM_BACKEND_DATABASE_URL": "sqlite:////data/x"}},
         "LLM_BACKEND_DATABASE_URL; it is .*sqlite"),
        ({"replicas": 2, "settings": {**SHARED, "LLM_BACKEND_OBJECT_STORE_URL": "file:///data"}},
         "LLM_BACKEND_OBJECT_STORE_URL; it is .*file"),
        ({"replicas": 2, "settings": {**SHARED, "LLM_BACKEND_QDRANT_URL": ""}}, "QDRANT_URL"),
    ],
)  # fmt: skip
def test_invalid_values_are_refused(chart, values, said):
    with pytest.raises(ValueError, match=said):
        template(chart, values)


def test_servers_without_an_autoscaler_are_as_many_as_the_replicas(chart):
    rendered = template(chart, {"replicas": 3, "settings": SHARED})

    deployment = one(rendered, "Deployment", SERVER)["spec"]
    assert deployment["replicas"] == 3
    assert deployment["strategy"]["type"] == "RollingUpdate"
    assert int(one(rendered, "ConfigMap", SETTINGS)["data"]["LLM_BACKEND_SHUTDOWN_DELAY_S"])
    assert objects(rendered, "PersistentVolumeClaim").keys() == {f"{SERVER}-models"}


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"replicas": 2, "settings": SHARED},
        {"replicas": 2, "settings": {**SHARED, "LLM_BACKEND_OBJECT_STORE_URL": "gs://bucket"}},
    ],
)
def test_notes_name_the_secrets_that_the_pod_reads(chart, values):
    told = notes(chart, values)
    created = {
        (name, key)
        for name, keys in re.findall(r"create secret generic (\S+) (.*)", told)
        for key in re.findall(r"--from-literal=([\w-]+)=", keys)
    }

    entries = container(template(chart, values), SERVER)["env"]
    assert created == {
        (one["valueFrom"]["secretKeyRef"]["name"], one["valueFrom"]["secretKeyRef"]["key"])
        for one in entries
        if not one.get("valueFrom", {}).get("secretKeyRef", {"optional": True}).get("optional")
    }


def test_every_value_has_a_schema(chart):
    values = yaml.safe_load((chart / "values.yaml").read_text(encoding="utf-8"))
    schema = json.loads((chart / "values.schema.json").read_text(encoding="utf-8"))

    assert values.keys() == schema["properties"].keys() - {"global"}


def test_chart_names_the_version_of_the_package(chart, root):
    names = yaml.safe_load((chart / "Chart.yaml").read_text(encoding="utf-8"))

    assert f'version = "{names["appVersion"]}"' in (root / "pyproject.toml").read_text()
    assert names["version"] == names["appVersion"]


def test_source_distribution_has_the_manifests_and_not_the_links_to_them(root):
    packed = {Path(file.relative_path) for file in SdistBuilder(str(root)).recurse_included_files()}

    files = {path.relative_to(root) for path in (root / "k8s").rglob("*") if path.is_file()}
    chart = {path for path in files if path.parts[:2] == ("k8s", "chart")}
    assert files - chart <= packed
    assert not chart & packed
