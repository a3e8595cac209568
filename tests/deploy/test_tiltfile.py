"""The Tiltfile's requests match the image, the manifests and the server."""

import pytest

from tests.deploy.tilt import TiltRequests, run
from tests.deploy.workload import container, objects, pods, secret_keys


@pytest.fixture
def tilt(root) -> TiltRequests:
    """The requests without environment variables."""
    return run(root / "Tiltfile", {})


def test_it_fits_on_a_page(root):
    assert len((root / "Tiltfile").read_text(encoding="utf-8").splitlines()) <= 60


def test_it_builds_the_image_that_the_manifests_name(tilt, development, image):
    (build,) = tilt.images

    assert build["ref"] == container(development, "llm-backend")["image"].partition(":")[0]
    assert build["context"] == "."
    assert build["target"] in image


def test_a_live_update_goes_where_the_server_watches_and_may_write(tilt, image, root):
    (build,) = tilt.images
    (step,) = build["live_update"]

    assert (root / step["sync"] / "__init__.py").exists()
    assert image[build["target"]].last("ENTRYPOINT").words[-1] == step["to"]
    assert image[build["target"]].last("RUN").text == f"chown -R 10001:10001 {step['to']}"


def test_the_manifests_that_it_applies_exist(tilt, root):
    assert tilt.kustomizations == ["k8s/overlays/dev"]
    assert tilt.files == ["k8s/chatbot-ui.yaml"]
    for path in [*tilt.kustomizations, *tilt.files]:
        assert (root / path).exists()


def test_it_forwards_the_server_and_the_front_end(tilt, development):
    forwards = {name: options["port_forwards"] for name, options in tilt.resources.items()}

    assert forwards == {"llm-backend": "8000:8000", "chatbot-ui": "3000:3000"}
    for name, forward in forwards.items():
        (port,) = container(development, name)["ports"]
        assert forward.endswith(f":{port['containerPort']}")


def test_a_front_end_that_is_checked_out_beside_it_is_built(root, development):
    tilt = run(root / "Tiltfile", {}, beside=["../chatbot-ui"])

    _, built = tilt.images
    assert built["context"] == "../chatbot-ui"
    assert built["ref"] == container(development, "chatbot-ui")["image"].rpartition(":")[0]


def test_the_front_end_waits_for_the_server(tilt, development):
    assert tilt.resources["chatbot-ui"]["resource_deps"] == ["llm-backend"]
    assert tilt.resources.keys() == pods(development).keys()


def test_without_an_upstream_key_only_the_secret_of_the_server_is_made(tilt):
    (secret,) = tilt.objects

    assert secret["metadata"]["name"] == "llm-backend-keys"
    assert secret["stringData"]["api-key"]


def test_keys_go_from_the_environment_into_secrets(root):
    environment = {"OPENAI_API_KEY": "sk-upstream", "LLM_BACKEND_API_KEYS": "sk-first, sk-second"}

    tilt = run(root / "Tiltfile", environment)

    assert {secret["metadata"]["name"]: secret["stringData"] for secret in tilt.objects} == {
        "llm-backend-keys": {"api-key": "sk-first"},  # one key: the front end sends it as it is
        "llm-backend-upstream": {"OPENAI_API_KEY": "sk-upstream"},
    }


def test_an_upstream_key_in_base64_is_taken_as_it_is(root):
    tilt = run(root / "Tiltfile", {"OPENAI_KEY_BASE64": "c2stdXBzdHJlYW0="})

    assert tilt.objects[-1]["data"] == {"OPENAI_API_KEY": "c2stdXBzdHJlYW0="}


def test_the_secrets_are_those_that_the_pods_read(root, development):
    tilt = run(root / "Tiltfile", {"OPENAI_API_KEY": "sk-upstream"})
    made = {
        (secret["metadata"]["name"], key) for secret in tilt.objects for key in secret["stringData"]
    }

    assert made == {
        keys for name in pods(development) for keys in secret_keys(container(development, name))
    }
    for secret in tilt.objects:
        assert secret["kind"] == "Secret"
        assert secret["metadata"]["namespace"] in objects(development, "Namespace")
