"""The manifests and the server agree: settings, probes, shutdown, storage, and the front end."""

import json
import os
import tomllib
from pathlib import Path

import pytest

from llm_backend.settings import PREFIX, Settings, load_settings
from tests.deploy.workload import container, environment, one, pod, secret_keys

SERVER = "llm-backend"
FRONT_END = "chatbot-ui"
# read by the libraries that speak to PostgreSQL and to S3, not by the server
OF_LIBRARIES = {"PGPASSWORD", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION"}


@pytest.fixture
def flags(image) -> dict[str, str]:
    """The flags that the image starts the server with, by the name of their setting."""
    words = image["runtime"].last("CMD").words[1:]
    return {
        flag[2:].replace("-", "_"): value
        for flag, value in zip(words[::2], words[1::2], strict=True)
    }


@pytest.fixture
def settings(manifests, image, flags, monkeypatch) -> Settings:
    """The settings of the server in the cluster; a name or a value that it refuses fails here."""
    for name in [*os.environ]:
        if name.upper() in known_names() or name.upper().startswith(PREFIX):
            monkeypatch.delenv(name)
    for instruction in image["runtime"].all("ENV"):
        for name, _, value in (word.partition("=") for word in instruction.words):
            if name.startswith(PREFIX):
                monkeypatch.setenv(name, value)
    for name, value in environment(manifests, SERVER).items():
        monkeypatch.setenv(name, value)
    return load_settings(flags)


def known_names() -> set[str]:
    """Every name that the environment may set a setting by."""
    names = {PREFIX + name.upper() for name in Settings.model_fields}
    for field in Settings.model_fields.values():
        names |= set(getattr(field.validation_alias, "choices", ()))
    return names


def test_every_variable_of_the_server_is_a_setting(manifests):
    assert environment(manifests, SERVER).keys() <= known_names() | OF_LIBRARIES


def test_the_image_sets_no_variable_that_is_no_setting(image):
    for stage in image.values():
        for instruction in stage.all("ENV"):
            names = {word.partition("=")[0] for word in instruction.words}

            assert {name for name in names if name.startswith(PREFIX)} <= known_names()


def test_a_server_that_others_reach_has_a_key(settings):
    assert not settings.is_loopback
    assert settings.api_keys
    assert not settings.allow_open


def test_it_starts_without_an_upstream_but_not_without_a_key(manifests):
    entries = {entry["name"]: entry for entry in container(manifests, SERVER)["env"]}

    assert entries["OPENAI_API_KEY"]["valueFrom"]["secretKeyRef"]["optional"] is True
    assert "optional" not in entries["LLM_BACKEND_API_KEYS"]["valueFrom"]["secretKeyRef"]


def test_variables_of_the_service_do_not_reach_the_settings(manifests):
    assert "LLM_BACKEND_PORT" in known_names()  # Kubernetes would set it, to no number
    assert pod(manifests, SERVER)["enableServiceLinks"] is False


def test_it_computes_on_as_many_cores_as_it_may_use(manifests, settings):
    assert settings.threads == int(container(manifests, SERVER)["resources"]["limits"]["cpu"])


def test_running_streams_finish_before_it_is_killed(manifests, settings):
    stop_s = settings.shutdown_delay_s + settings.shutdown_grace_s

    assert pod(manifests, SERVER)["terminationGracePeriodSeconds"] >= stop_s + 10


def test_two_servers_never_write_one_sqlite_file(manifests, settings):
    deployment = one(manifests, "Deployment", SERVER)["spec"]
    is_alone = deployment.get("replicas") == 1 and deployment["strategy"] == {"type": "Recreate"}

    assert settings.database.startswith("sqlite") == is_alone


def test_the_servers_data_is_on_a_volume(manifests, settings, image):
    mounts = {mount["mountPath"] for mount in container(manifests, SERVER)["volumeMounts"]}

    assert str(settings.data_dir) in mounts
    assert {*json.loads(image["runtime"].last("VOLUME").text), "/tmp"} == mounts


def test_models_of_the_hub_are_on_the_volume_of_models(manifests, settings):
    (mount,) = [
        mount for mount in container(manifests, SERVER)["volumeMounts"] if mount["name"] == "models"
    ]

    assert str(settings.models_folder) == mount["mountPath"]


def test_commands_in_the_container_use_the_database_of_the_server(settings):
    assert load_settings({}).database == settings.database


def test_it_listens_where_the_service_looks(manifests, settings, image):
    (port,) = container(manifests, SERVER)["ports"]

    assert settings.host == "0.0.0.0"
    assert port["containerPort"] == settings.port
    assert image["runtime"].last("EXPOSE").words == [str(settings.port)]


def test_settings_choose_the_address_of_the_server(settings, flags, monkeypatch):
    monkeypatch.setenv("LLM_BACKEND_HOST", "::")  # in a cluster of IPv6 alone

    assert load_settings(flags).host == "::"


def test_it_runs_as_the_user_of_the_image(manifests, image):
    context = pod(manifests, SERVER)["securityContext"]

    assert f"{context['runAsUser']}:{context['runAsGroup']}" == image["runtime"].last("USER").text
    assert context["fsGroup"] == context["runAsGroup"]


def test_the_base_runs_the_version_of_the_package(manifests, root: Path):
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]

    tag = container(manifests, SERVER)["image"].removeprefix(f"{SERVER}:")
    assert tag in {project["version"], f"{project['version']}-cuda", "dev"}


def test_probes_call_operations_that_need_no_key(manifests, own_operations):
    server = container(manifests, SERVER)
    asked = {
        server[probe]["httpGet"]["path"]
        for probe in ("startupProbe", "livenessProbe", "readinessProbe")
    }

    assert asked == {"/healthz", "/readyz"}
    for path in asked:
        assert own_operations[path]["get"]["security"] == []


def test_the_front_end_calls_the_service(manifests):
    (port,) = one(manifests, "Service", SERVER)["spec"]["ports"]

    host = environment(manifests, FRONT_END)["OPENAI_API_HOST"]
    assert host == f"http://{SERVER}:{port['port']}"


def test_the_front_end_sends_the_key_of_the_server(manifests):
    keys = set(secret_keys(container(manifests, FRONT_END)))

    assert keys < set(secret_keys(container(manifests, SERVER)))


def test_the_local_model_answers_to_the_id_that_the_front_end_starts_with(manifests, settings):
    assert environment(manifests, FRONT_END)["DEFAULT_MODEL"] in settings.aliases
