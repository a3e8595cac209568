"""The dashboard asks for what the server tells."""

import json
import re
from pathlib import Path

import kubernetes_validate
import pytest

from llm_backend.telemetry import Metrics
from tests.deploy.conftest import deployed_alone


@pytest.fixture(scope="module")
def dashboard(root: Path) -> dict[str, object]:
    """The dashboard of Grafana."""
    return json.loads((root / "k8s/monitoring/dashboard.json").read_text(encoding="utf-8"))


def targets(dashboard):
    return [target for panel in dashboard["panels"] for target in panel.get("targets", [])]


def test_every_number_that_it_asks_for_is_told(dashboard):
    metrics = Metrics().render().decode()

    for target in targets(dashboard):
        for name in re.findall(r"llm_backend_\w+", target["expr"]):
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

    kubernetes_validate.validate(config, "1.31", strict=True)
    assert config["metadata"]["labels"] == {"grafana_dashboard": "1"}
    assert json.loads(config["data"]["dashboard.json"]) == dashboard
