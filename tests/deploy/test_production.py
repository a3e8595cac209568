"""Production overlay: shared stores, number of servers, network policies."""

from pathlib import Path

import pytest

from llm_backend.settings import Settings
from tests.deploy.test_server_in_the_cluster import SERVER, known_names
from tests.deploy.workload import container, environment, objects, one, pod, workloads


@pytest.fixture
def given(production) -> Settings:
    """The server's own settings, as the cluster gives them."""
    values = {
        name.lower().removeprefix("llm_backend_"): value
        for name, value in environment(production, SERVER).items()
        if name in known_names() and name.startswith("LLM_BACKEND_")
    }
    return Settings(**values)


def test_the_shared_state_of_servers_is_in_no_pod(production, given):
    (data,) = [volume for volume in pod(production, SERVER)["volumes"] if volume["name"] == "data"]

    assert "emptyDir" in data
    assert given.database.startswith("postgresql://")
    assert given.object_store_url.startswith("s3://")
    assert given.qdrant_url


def test_servers_name_the_stores_as_their_services_are_named(production, given):
    services = objects(production, "Service")

    assert f"@{'llm-backend-postgresql'}/" in given.database
    (port,) = services["llm-backend-qdrant"]["spec"]["ports"]
    assert given.qdrant_url == f"http://llm-backend-qdrant:{port['port']}"


def test_one_copy_of_the_models_is_read_by_all_and_written_by_the_job(production):
    claim = one(production, "PersistentVolumeClaim", "llm-backend-models")
    (reading,) = mounts(container(production, SERVER), "models")
    (writing,) = mounts(container(production, "llm-backend-pull-model"), "models")

    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    assert reading["readOnly"] is True
    assert not writing.get("readOnly")


def mounts(its, name: str):
    return [mount for mount in its["volumeMounts"] if mount["name"] == name]


def test_the_job_runs_the_image_of_the_server_and_gives_a_command_that_there_is(production):
    job = container(production, "llm-backend-pull-model")

    assert job["image"] == container(production, SERVER)["image"]
    assert job["args"][:2] == ["models", "pull"]
    names = {entry["name"] for entry in job["env"]}
    assert {name for name in names if name.startswith("LLM_BACKEND_")} <= known_names()


def test_the_number_of_servers_is_the_autoscalers(production):
    scaler = one(production, "HorizontalPodAutoscaler", SERVER)["spec"]

    assert scaler["scaleTargetRef"]["name"] in objects(production, "Deployment")
    assert "replicas" not in one(production, "Deployment", SERVER)["spec"]
    assert 2 <= scaler["minReplicas"] < scaler["maxReplicas"]
    assert "cpu" in container(production, SERVER)["resources"]["requests"]  # what it is a share of


def test_an_update_and_a_drained_node_leave_servers_behind(production):
    rolling = one(production, "Deployment", SERVER)["spec"]["strategy"]["rollingUpdate"]
    budget = one(production, "PodDisruptionBudget", SERVER)["spec"]

    assert rolling["maxUnavailable"] == 0
    assert (
        budget["maxUnavailable"]
        < one(production, "HorizontalPodAutoscaler", SERVER)["spec"]["minReplicas"]
    )


def test_a_server_answers_until_the_service_has_forgotten_it(production, given):
    probe = container(production, SERVER)["readinessProbe"]

    assert given.shutdown_delay_s >= probe["periodSeconds"]
    assert "lifecycle" not in container(production, SERVER)  # which would come on top


def test_network_policies_deny_by_default(production):
    policy = one(production, "NetworkPolicy", "default-deny")["spec"]

    assert policy == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}


def test_every_policy_selects_pods_that_there_are(production):
    labels = [
        workload["spec"]["template"]["metadata"]["labels"]
        for workload in [*workloads(production).values(), *objects(production, "Job").values()]
    ]

    for policy in objects(production, "NetworkPolicy").values():
        for selector in selectors(policy["spec"]):
            assert any(selector.items() <= found.items() for found in labels), selector


def selectors(policy):
    yield policy["podSelector"].get("matchLabels", {})
    for direction, peers in (("ingress", "from"), ("egress", "to")):
        for rule in policy.get(direction, []):
            for peer in rule.get(peers, []):
                if "podSelector" in peer:
                    yield peer["podSelector"]["matchLabels"]


def test_the_server_may_reach_every_store_of_its_settings(production):
    reached = {
        peer["podSelector"]["matchLabels"]["app.kubernetes.io/name"]
        for rule in one(production, "NetworkPolicy", SERVER)["spec"]["egress"]
        for peer in rule.get("to", [])
    }

    assert reached == set(objects(production, "StatefulSet"))


def test_only_the_server_may_reach_the_stores(production):
    (rule,) = one(production, "NetworkPolicy", "stores")["spec"]["ingress"]
    (peer,) = rule["from"]

    assert peer["podSelector"]["matchLabels"] == {"app.kubernetes.io/name": SERVER}
    label = {"app.kubernetes.io/part-of": "llm-backend-stores"}
    for store in objects(production, "StatefulSet").values():
        assert label.items() <= store["spec"]["template"]["metadata"]["labels"].items()


def test_every_pod_of_the_stores_keeps_what_it_has_on_a_volume(production):
    for name, store in objects(production, "StatefulSet").items():
        (claim,) = store["spec"]["volumeClaimTemplates"]

        assert mounts(container(production, name), claim["metadata"]["name"])


def test_the_readme_names_every_file(root: Path):
    readme = (root / "k8s" / "README.md").read_text(encoding="utf-8")

    for folder in ("base/", "overlays/dev/", "overlays/prod/", "monitoring/"):
        assert f"`{folder}`" in readme
