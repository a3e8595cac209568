"""The dashboard and the alerts ask for what the server exports."""

import json
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from llm_backend.settings import Settings
from llm_backend.settings.model_entry import ModelSettings
from tests.deploy.conftest import deployed_alone
from tests.deploy.exported import Query, exported_labels
from tests.deploy.schemas import check
from tests.gateway import gateway
from tests.missing import missing


@pytest.fixture(scope="module")
def dashboard(root: Path) -> dict[str, object]:
    """The dashboard of Grafana."""
    return json.loads((root / "k8s/monitoring/dashboard.json").read_text(encoding="utf-8"))


def targets(dashboard):
    return [target for panel in dashboard["panels"] for target in panel.get("targets", [])]


@pytest.fixture(scope="module")
def exported() -> Mapping[str, frozenset[str]]:
    """The labels of each series that a server exports."""
    return exported_labels()


def test_panels_query_series_and_labels_that_are_exported(dashboard, exported):
    for target in targets(dashboard):
        shown = target.get("legendFormat", "")
        assert Query(target["expr"]).unexported(exported, shown) == set(), target["expr"]


def test_variables_of_the_dashboard_list_values_of_exported_labels(dashboard, exported):
    variables = {
        one["name"]: one["query"]["query"]
        for one in dashboard["templating"]["list"]
        if one["type"] == "query"
    }

    assert variables.keys() == {"instance", "model"}
    for query in variables.values():
        name, label = re.fullmatch(r"label_values\((\w+), (\w+)\)", query).groups()
        assert label in exported[name] | {"instance"}
    used = set(
        re.findall(
            r'=~"\$(\w+)"', json.dumps([t["expr"] for t in targets(dashboard)]).replace("\\", "")
        )
    )
    assert used == variables.keys()


@pytest.mark.parametrize(
    ("expression", "shown", "missing"),
    [
        ('rate(llm_backend_requests_total{status="500"}[5m])', "{{ $labels.instance }}", set()),
        ("rate(llm_backend_request_total[5m])", "", {"llm_backend_request_total"}),
        ('llm_backend_jobs{sort="x"}', "", {"llm_backend_jobs{sort}"}),
        ("max by (model) (llm_backend_jobs)", "", {"label model"}),
        (
            "max by (kind) (llm_backend_jobs)",
            "{{ $labels.state }}",
            {"grouped label state"},
        ),
    ],
)
def test_series_that_no_server_exports_are_found(exported, expression, shown, missing):
    assert Query(expression).unexported(exported, shown) == missing


def test_panels_lie_beside_each_other(dashboard):
    taken = set()
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert place["x"] + place["w"] <= 24
        taken |= cells


def test_grafana_finds_it(dashboard):
    (config,) = deployed_alone("monitoring")

    check(config)
    assert config["metadata"]["labels"] == {"grafana_dashboard": "1"}
    assert json.loads(config["data"]["dashboard.json"]) == dashboard


@pytest.fixture(scope="module")
def alerts(root: Path) -> list[dict[str, object]]:
    """The alert rules, in Prometheus' own form."""
    (group,) = yaml.safe_load((root / "k8s/monitoring/alerts.yaml").read_text())["groups"]
    return group["rules"]


def test_alerts_of_the_operator_are_the_plain_ones(root, alerts):
    rule = yaml.safe_load((root / "k8s/monitoring/prometheus-rule.yaml").read_text())

    check(rule)
    assert rule["spec"]["groups"] == [{"name": "llm-backend", "rules": alerts}]


def test_each_alert_queries_exported_series_and_has_its_paragraph(root, alerts, exported):
    runbook = (root / "docs/runbook.md").read_text()

    headings = re.findall(r"^## (\w+)$", runbook, re.MULTILINE)
    assert [rule["alert"] for rule in alerts] == headings
    for rule in alerts:
        notes = rule["annotations"]
        assert notes["runbook_url"] == f"docs/runbook.md#{rule['alert'].lower()}"
        assert Query(rule["expr"]).unexported(exported, notes["summary"]) == set(), rule["alert"]
    settings = set(re.findall(r"`([a-z]+_[a-z_]+)`", runbook)) - EVENTS
    assert settings <= Settings.model_fields.keys() | ModelSettings.model_fields.keys()


async def test_counters_of_alerts_are_exported_before_they_count(alerts, tmp_path):
    async with gateway(tmp_path) as served, httpx.AsyncClient() as client:
        answer = await client.get(
            f"http://127.0.0.1:{served.port}/metrics", headers={"host": "relay"}
        )

    names = set(re.findall(r"increase\((\w+)", " ".join(rule["expr"] for rule in alerts)))
    assert len(names) > 3
    for name in names - {"llm_backend_engine_deaths_total"}:  # which each engine has
        assert re.search(rf"^{name}(?:{{.*}})? 0.0$", answer.text, re.MULTILINE), name


def up(name: str, values: str, **labels: str) -> dict[str, str]:
    """A series of one server, by a value a minute."""
    listed = ", ".join(f'{key}="{value}"' for key, value in {**labels, **SERVER}.items())
    return {"series": f"{name}{{{listed}}}", "values": values}


SERVER = {"instance": "one:8000"}
REQUESTS = "llm_backend_requests_total"
ANSWERED = up(REQUESTS, "0+60x30", operation="createChatCompletion", status="200")
FAILED = {"operation": "createChatCompletion", "status": "500"}
UNSUPPORTED = {**FAILED, "status": "501"}
PROBED = up(REQUESTS, "0+20x30", operation="getHealth", status="200")
FIRING: Mapping[str, tuple[list[dict[str, str]], dict[str, str]]] = {
    "LlmBackendAbsent": ([], {}),
    "LlmBackendErrors": (
        [  # of a server with more probes than requests
            PROBED,
            up(REQUESTS, "0+0.5x30", **{**FAILED, "status": "200"}),
            up(REQUESTS, "0+0.5x30", **FAILED),
        ],
        SERVER,
    ),
    "LlmBackendQueueSlow": (
        [
            up("llm_backend_queue_seconds_bucket", "0+1x30", model="m", le="5.0"),
            up("llm_backend_queue_seconds_bucket", "0+10x30", model="m", le="10.0"),
            up("llm_backend_queue_seconds_bucket", "0+10x30", model="m", le="+Inf"),
        ],
        {"model": "m"},
    ),
    "LlmBackendEngineRestarts": (
        [up("llm_backend_engine_deaths_total", "0+0.5x30", model="m")],
        {"model": "m", **SERVER},
    ),
    "LlmBackendEngineDown": (
        [up("llm_backend_engine_up", "0x30", model="m")],
        {"model": "m", **SERVER},
    ),
    "LlmBackendUpstreamDown": (
        [up("llm_backend_upstream_up", "0x30", upstream="far")],
        {"upstream": "far", **SERVER},
    ),
    "LlmBackendStoreFailing": ([up("llm_backend_store_write_failures_total", "0+1x30")], SERVER),
    "LlmBackendNotStored": (
        [up("llm_backend_not_stored_total", "0+1x30", what="chat")],
        {"what": "chat", **SERVER},
    ),
    "LlmBackendTemporaryFilesFull": (
        [up("llm_backend_temporary_file_failures_total", "0+1x30", what="form")],
        {"what": "form", **SERVER},
    ),
    "LlmBackendJobsLate": (
        [up("llm_backend_jobs_lag_seconds", "901x30", kind="batch")],
        {"kind": "batch"},
    ),
}
"""For each alert, the series with which it fires after half an hour, and its labels."""
HEALTHY = [
    up("llm_backend_build_info", "1x30", version="1", python_version="3"),
    PROBED,
    ANSWERED,
    up(REQUESTS, "0+3x30", **FAILED),
    up(REQUESTS, "0+60x30", **UNSUPPORTED),
    up("llm_backend_queue_seconds_bucket", "0+10x30", model="m", le="5.0"),
    up("llm_backend_queue_seconds_bucket", "0+10x30", model="m", le="+Inf"),
    up("llm_backend_engine_deaths_total", "2x30", model="m"),
    up("llm_backend_engine_up", "1x30", model="m"),
    up("llm_backend_upstream_up", "1x30", upstream="far"),
    up("llm_backend_store_write_failures_total", "3x30"),
    up("llm_backend_not_stored_total", "3x30", what="chat"),
    up("llm_backend_temporary_file_failures_total", "3x30", what="form"),
    up("llm_backend_jobs_lag_seconds", "60x30", kind="batch"),
]


def test_series_of_the_cases_of_alerts_are_exported(alerts, exported):
    assert FIRING.keys() == {rule["alert"] for rule in alerts}
    for series in [*HEALTHY, *(one for case, _ in FIRING.values() for one in case)]:
        name, labels = re.fullmatch(r"(\w+){(.*)}", series["series"]).groups()
        assert set(re.findall(r"(\w+)=", labels)) == exported[name] | {"instance"}, name


def test_alerts_fire_when_they_should_and_not_at_a_healthy_server(root, alerts, tmp_path):
    program = shutil.which("promtool")
    if program is None:
        missing("promtool is not installed: sh scripts/install_test_tools.sh")
    by_name = {rule["alert"]: rule for rule in alerts}
    cases = [
        unit(name, series, [expected(by_name[name], labels)])
        for name, (series, labels) in FIRING.items()
    ]
    cases += [unit(name, HEALTHY, []) for name in by_name]
    file = tmp_path / "cases.yaml"
    rules = str(root / "k8s/monitoring/alerts.yaml")
    file.write_text(json.dumps({"rule_files": [rules], "tests": cases}))  # which is YAML

    told = subprocess.run(
        [program, "test", "rules", str(file)], capture_output=True, text=True, check=False
    )
    assert told.returncode == 0, told.stdout + told.stderr
    checked = subprocess.run(
        [program, "check", "rules", rules], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stderr


def unit(name: str, series: list[dict[str, str]], alerts: list[dict[str, Any]]) -> dict[str, Any]:
    """A case of promtool: the alerts of this name after half an hour of these series."""
    asked = {"eval_time": "30m", "alertname": name, "exp_alerts": alerts}
    return {"interval": "1m", "input_series": series, "alert_rule_test": [asked]}


def expected(rule: dict[str, Any], labels: dict[str, str]) -> dict[str, Any]:
    """The alert of a rule, with these labels and the texts that they make."""
    summary = re.sub(
        r"{{ \$labels\.(\w+) }}", lambda found: labels[found[1]], rule["annotations"]["summary"]
    )
    return {
        "exp_labels": {**rule["labels"], **labels},
        "exp_annotations": {**rule["annotations"], "summary": summary},
    }


EVENTS = {
    "request_id",
    "engine_died",
    "engine_failed",
    "job_runner_crashed",
    "chat_not_stored",
    "response_not_stored",
    "webhook_not_delivered",
}
