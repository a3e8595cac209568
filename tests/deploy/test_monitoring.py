"""The dashboard asks for what the server tells."""

import json
import re
from pathlib import Path

import pytest
import yaml

from llm_backend.metrics import Metrics
from llm_backend.settings import Settings
from llm_backend.settings.model_entry import ModelSettings
from tests.deploy.conftest import deployed_alone
from tests.deploy.schemas import check


@pytest.fixture(scope="module")
def dashboard(root: Path) -> dict[str, object]:
    """The dashboard of Grafana."""
    return json.loads((root / "k8s/monitoring/dashboard.json").read_text(encoding="utf-8"))


def targets(dashboard):
    return [target for panel in dashboard["panels"] for target in panel.get("targets", [])]


def test_every_metric_of_the_dashboard_exists(dashboard):
    metrics = Metrics().render().decode()

    for target in targets(dashboard):
        for name in re.findall(r"(?:llm_backend|gen_ai)_\w+(?=[{])", target["expr"]):
            family = re.sub(r"_(total|bucket|sum|count)$", "", name)
            assert re.search(rf"^# TYPE {family}(_total)? ", metrics, re.MULTILINE), name


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


def test_each_alert_uses_metrics_that_exist_and_has_its_paragraph(root, alerts):
    runbook = (root / "docs/runbook.md").read_text()
    metrics = Metrics().render().decode()

    headings = re.findall(r"^## (\w+)$", runbook, re.MULTILINE)
    assert [rule["alert"] for rule in alerts] == headings
    for rule in alerts:
        assert rule["annotations"]["runbook_url"] == f"docs/runbook.md#{rule['alert'].lower()}"
        for name in re.findall(r"llm_backend_\w+", rule["expr"]):
            family = re.sub(r"_(total|bucket)$", "", name)
            assert re.search(rf"^# TYPE {family}(_total)? ", metrics, re.MULTILINE), name
    settings = set(re.findall(r"`([a-z]+_[a-z_]+)`", runbook)) - EVENTS
    assert settings <= Settings.model_fields.keys() | ModelSettings.model_fields.keys()


EVENTS = {
    "request_id",
    "job_runner_crashed",
    "chat_not_stored",
    "response_not_stored",
    "webhook_not_delivered",
}
