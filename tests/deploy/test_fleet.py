"""Fleet overlay: pool, route and endpoint picker name what there is."""

from collections import defaultdict

import pytest
import yaml

from llm_backend.engine_metrics import AdapterStates
from llm_backend.metrics import Metrics
from tests.deploy.conftest import deployed_alone
from tests.deploy.test_server_in_the_cluster import SERVER
from tests.deploy.workload import container, objects, one, workloads

PICKER = "llm-backend-endpoint-picker"


@pytest.fixture(scope="module")
def fleet():
    """The servers of the production overlay, and what routes to them."""
    return deployed_alone("overlays/fleet")


@pytest.fixture
def pool(fleet):
    """The pool that the gateway sends requests to."""
    return one(fleet, "InferencePool", SERVER)["spec"]


def test_pool_selects_the_servers_at_their_port(fleet, pool):
    labels = workloads(fleet)[SERVER]["spec"]["template"]["metadata"]["labels"]
    ports = {port["containerPort"] for port in container(fleet, SERVER)["ports"]}

    assert pool["selector"]["matchLabels"].items() <= labels.items()
    assert {port["number"] for port in pool["targetPorts"]} <= ports


def test_pool_names_the_picker_and_its_port(fleet, pool):
    picker = pool["endpointPickerRef"]
    (port,) = objects(fleet, "Service")[picker["name"]]["spec"]["ports"]
    (grpc,) = [one for one in container(fleet, PICKER)["ports"] if one["name"] == "grpc"]

    assert port["port"] == picker["port"]["number"] == grpc["containerPort"]


def test_route_sends_generation_to_the_pool_and_the_rest_to_the_service(fleet):
    generating, other = one(fleet, "HTTPRoute", SERVER)["spec"]["rules"]
    (pooled,), (served,) = generating["backendRefs"], other["backendRefs"]
    (port,) = objects(fleet, "Service")[served["name"]]["spec"]["ports"]

    assert (pooled["kind"], pooled["name"]) == ("InferencePool", SERVER)
    assert served["port"] == port["port"]
    assert "matches" not in other


def test_pickers_plugins_are_all_weighted(fleet):
    (name,) = [name for name in objects(fleet, "ConfigMap") if name.startswith(PICKER)]
    config = yaml.safe_load(one(fleet, "ConfigMap", name)["data"]["config.yaml"])
    (profile,) = config["schedulingProfiles"]

    assert {one["pluginRef"] for one in profile["plugins"]} == {
        one["type"] for one in config["plugins"]
    }
    (volume,) = workloads(fleet)[PICKER]["spec"]["template"]["spec"]["volumes"]
    assert volume["configMap"]["name"] == name


def test_picker_may_watch_what_its_version_looks_for(fleet):
    (name,) = [name for name in objects(fleet, "ConfigMap") if name.startswith(PICKER)]
    config = yaml.safe_load(one(fleet, "ConfigMap", name)["data"]["config.yaml"])
    watched = {
        f"{resource}.{group}"
        for rule in one(fleet, "Role", PICKER)["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
    }

    group = config["apiVersion"].partition("/")[0]
    assert {
        "pods.", "inferencepools.inference.networking.k8s.io", f"inferenceobjectives.{group}",
    } <= watched  # fmt: skip


def test_server_has_the_metrics_that_pickers_read():
    metrics = Metrics()
    state = {
        "slots": 4, "running": 3, "waiting": 2, "context_tokens": 640, "running_tokens": 640,
    }  # fmt: skip
    adapters = AdapterStates(configured=3, loaded=["m:poet", "m:lawyer"], loading=["m:cook"])
    metrics.engines.set({"m": defaultdict(float, state)}, adapters)
    lines = metrics.render().decode().splitlines()

    assert 'vllm:num_requests_waiting{model_name="m"} 2.0' in lines
    assert 'vllm:num_requests_running{model_name="m"} 3.0' in lines
    assert 'vllm:kv_cache_usage_perc{model_name="m"} 0.25' in lines
    labels = 'block_size="64",model_name="m",num_gpu_blocks="40"'
    assert f"vllm:cache_config_info{{{labels}}} 1.0" in lines
    names = 'running_lora_adapters="m:poet,m:lawyer",waiting_lora_adapters="m:cook"'
    (told,) = [line for line in lines if line.startswith("vllm:lora_requests_info{")]
    assert told.startswith(f'vllm:lora_requests_info{{max_lora="3",{names}}} ')
    assert float(told.split()[-1]) > 1e9  # seconds since 1970


def test_server_without_adapters_has_a_metric_of_none():
    lines = Metrics().render().decode().splitlines()

    names = 'max_lora="0",running_lora_adapters="",waiting_lora_adapters=""'
    assert any(line.startswith(f"vllm:lora_requests_info{{{names}}} ") for line in lines)
