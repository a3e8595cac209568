"""Manifests are valid, hardened, and refer only to existing names."""

import re
from itertools import chain

import pytest

from tests.deploy.schemas import SUPPORTED_VERSIONS, check
from tests.deploy.workload import container, objects, one, pod, pods, secret_keys, workloads

PICKER = "llm-backend-endpoint-picker"  # it watches pods


@pytest.mark.parametrize("version", SUPPORTED_VERSIONS)
def test_kubernetes_takes_every_manifest(manifests, version):
    for manifest in manifests:
        check(manifest, version)


def test_everything_lies_in_one_namespace(manifests):
    (namespace,) = objects(manifests, "Namespace")

    assert {
        manifest["metadata"]["namespace"]
        for manifest in manifests
        if manifest["kind"] != "Namespace"
    } == {namespace}


def test_the_namespace_enforces_the_restricted_standard(manifests):
    labels = one(manifests, "Namespace", "llm-backend")["metadata"]["labels"]

    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"


def test_every_pod_meets_the_restricted_standard(manifests):
    for its in pods(manifests).values():
        assert its["securityContext"]["runAsNonRoot"] is True
        assert its["securityContext"]["runAsUser"] > 0
        assert its["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC"} & its.keys()
        for each in its["containers"]:
            assert each["securityContext"]["allowPrivilegeEscalation"] is False
            assert each["securityContext"]["capabilities"] == {"drop": ["ALL"]}


def test_no_pod_but_the_picker_holds_a_token_of_the_cluster(manifests):
    for name, its in pods(manifests).items():
        if name != PICKER:
            assert its["automountServiceAccountToken"] is False


def test_only_a_live_update_writes_to_the_root_file_system(manifests):
    written = {
        name
        for name in pods(manifests)
        if not container(manifests, name)["securityContext"]["readOnlyRootFilesystem"]
    }

    is_development = container(manifests, "llm-backend")["image"].endswith(":dev")
    assert written == ({"llm-backend"} if is_development else set())


def test_every_container_is_probed_and_bounded(manifests):
    for name, its in pods(manifests).items():
        for each in its["containers"]:
            if name in workloads(manifests):
                assert {"startupProbe", "livenessProbe", "readinessProbe"} <= each.keys()
            assert {"cpu", "memory"} <= each["resources"]["requests"].keys()
            assert {"cpu", "memory"} <= each["resources"]["limits"].keys()


def test_no_secret_is_written_down(manifests):
    assert not objects(manifests, "Secret")
    for its in pods(manifests).values():
        for entry in chain.from_iterable(each.get("env", []) for each in its["containers"]):
            if any(word in entry["name"] for word in ("KEY", "PASSWORD", "TOKEN")):
                assert "secretKeyRef" in entry["valueFrom"]
    for settings in objects(manifests, "ConfigMap").values():
        assert not [name for name in settings["data"] if "KEY" in name]


def test_every_name_that_a_pod_refers_to_exists(manifests):
    for name, its in pods(manifests).items():
        for volume in its["volumes"]:
            if claim := volume.get("persistentVolumeClaim"):
                assert claim["claimName"] in objects(manifests, "PersistentVolumeClaim")
        claimed = objects(manifests, "StatefulSet").get(name, {"spec": {}})["spec"]
        claims = {claim["metadata"]["name"] for claim in claimed.get("volumeClaimTemplates", [])}
        for each in its["containers"]:
            mounted = {mount["name"] for mount in each["volumeMounts"]}
            assert mounted == {volume["name"] for volume in its["volumes"]} | claims
            for source in each.get("envFrom", []):
                assert source["configMapRef"]["name"] in objects(manifests, "ConfigMap")
        if account := its.get("serviceAccountName"):
            assert account in objects(manifests, "ServiceAccount")


def test_every_claim_is_mounted(manifests):
    volumes = pod(manifests, "llm-backend")["volumes"]

    assert {
        volume["persistentVolumeClaim"]["claimName"]
        for volume in volumes
        if "persistentVolumeClaim" in volume
    } == objects(manifests, "PersistentVolumeClaim").keys()


def test_every_service_finds_the_port_of_its_pods(manifests):
    for name, service in objects(manifests, "Service").items():
        workload = workloads(manifests)[name]
        labels = workload["spec"]["template"]["metadata"]["labels"]
        port = container(manifests, name)["ports"][0]
        (offered,) = service["spec"]["ports"]

        assert service["spec"]["selector"].items() <= labels.items()
        assert workload["spec"]["selector"]["matchLabels"].items() <= labels.items()
        assert offered["targetPort"] == port["name"]
        assert offered["port"] == port["containerPort"]


def test_every_probe_uses_a_port_of_its_container(manifests):
    for name in workloads(manifests):
        each = container(manifests, name)
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            if "grpc" in each[probe]:
                numbers = {port["containerPort"] for port in each["ports"]}
                assert each[probe]["grpc"]["port"] in numbers
                continue
            action = each[probe].get("httpGet") or each[probe].get("tcpSocket")

            assert action["port"] == each["ports"][0]["name"] if action else "exec" in each[probe]


def test_the_secrets_that_pods_read_are_explained(manifests, root):
    readme = (root / "k8s" / "README.md").read_text(encoding="utf-8")

    for name in pods(manifests):
        for secret, key in secret_keys(container(manifests, name)):
            others = r"(--from-literal=\S+ [\\\s]*)*"
            command = rf"create secret generic {secret} {others}--from-literal={key}="
            assert re.search(command, readme), (secret, key)
