"""Rendered manifests and stages of the image, read once."""

from functools import cache
from pathlib import Path

import pytest
import yaml

from tests.deploy.dockerfile import Stage, stages
from tests.deploy.kustomize import Manifest, Missing, render
from tests.missing import missing

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def root() -> Path:
    """The project's folder."""
    return ROOT


@pytest.fixture(
    scope="session",
    params=["base", "overlays/cuda", "overlays/dev", "overlays/prod", "overlays/fleet"],
)
def manifests(request: pytest.FixtureRequest) -> list[Manifest]:
    """All manifests of each kustomization."""
    return deployed(request.param)


@pytest.fixture(scope="session")
def development() -> list[Manifest]:
    """The manifests that Tilt deploys."""
    return deployed("overlays/dev")


@pytest.fixture(scope="session")
def production() -> list[Manifest]:
    """Several servers and the stores that they share."""
    return deployed("overlays/prod")


@cache
def deployed_alone(folder: str) -> list[Manifest]:
    """One kustomization."""
    try:
        return render(ROOT / "k8s" / folder)
    except Missing as error:
        missing(str(error))


def deployed(folder: str) -> list[Manifest]:
    """One kustomization, and chatbot-ui beside it."""
    server = deployed_alone(folder)
    front_end = yaml.safe_load_all((ROOT / "k8s" / "chatbot-ui.yaml").read_text(encoding="utf-8"))
    return [*server, *front_end]


@pytest.fixture(scope="session")
def image() -> dict[str, Stage]:
    """The stages of the Dockerfile by name."""
    return stages(ROOT / "Dockerfile")


@pytest.fixture(scope="session")
def own_operations() -> dict[str, dict[str, object]]:
    """The paths of the operations that are the project's own."""
    document = (ROOT / "openapi" / "extensions.yaml").read_text(encoding="utf-8")
    return yaml.safe_load(document)["paths"]
