"""k8s/base and k8s/chatbot-ui.yaml as pods, which have their secret, volumes and settings."""

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import openai
import pytest
import yaml

from tests.deploy.conftest import deployed_alone
from tests.image.conftest import ROOT
from tests.image.podman import BASE_IMAGE, Podman, until
from tests.image.pods import local_claims, local_pods, secret
from tests.ports import free_port

KEY = "sk-of-the-secret"
SERVER = "llm-backend-pod-0-llm-backend"
CHATS = [{"role": "user", "content": "Who are you?"}]


@dataclass
class Pods:
    """The base as pods of this machine, and a client with the key of the secret."""

    podman: Podman
    image: str
    port: int
    client: openai.OpenAI

    def play(self) -> None:
        """Starts the pods, with the volumes that there are."""
        base, images = deployed_alone("base"), {"llm-backend": self.image}
        self._play(local_pods(base, images, LLM_BACKEND_PORT=str(self.port)))
        self.wait_ready()

    def play_front_end(self, image: str, port: int) -> None:
        text = (ROOT / "k8s" / "chatbot-ui.yaml").read_text(encoding="utf-8")
        variables = {"OPENAI_API_HOST": f"http://127.0.0.1:{self.port}", "PORT": str(port)}
        self._play(local_pods([*yaml.safe_load_all(text)], {"chatbot-ui": image}, **variables))

    def wait_ready(self) -> None:
        until(lambda: is_ok(f"http://127.0.0.1:{self.port}/readyz"))

    def _play(self, manifests: str) -> None:
        self.podman.run("kube", "play", "-", given=manifests)


def is_ok(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5).status_code == 200
    except httpx.TransportError:
        return False


@pytest.fixture(scope="module")
def pods(podman: Podman, image: str) -> Iterator[Pods]:
    """The base, played once for the tests of this file."""
    port = free_port()
    address = f"http://127.0.0.1:{port}/v1"
    podman.run("secret", "create", "llm-backend-keys", "-", given=secret(**{"api-key": KEY}))
    podman.run("kube", "play", "-", given=local_claims(deployed_alone("base")))
    with openai.OpenAI(base_url=address, api_key=KEY, timeout=120) as client:
        pods = Pods(podman, image, port, client)
        pods.play()
        yield pods
    podman.remove_all()


@pytest.fixture
def stored(pods: Pods) -> Callable[[], str]:
    """Asks for the text of a chat that was stored before; the chat is made here."""
    chat = pods.client.chat.completions.create(model="gpt-3.5-turbo", messages=CHATS, store=True)
    text = chat.choices[0].message.content
    assert text

    def find() -> str:
        found = pods.client.chat.completions.retrieve(chat.id)
        assert found.choices[0].message.content == text
        return text

    return find


def test_secret_and_settings_reach_the_server(pods):
    names = [model.id for model in pods.client.models.list()]

    assert "gpt-3.5-turbo" in names
    with pytest.raises(openai.AuthenticationError):
        pods.client.with_options(api_key="sk-other").models.list()


def test_pod_has_the_restrictions_of_its_manifest(pods):
    told = pods.podman.inspect(SERVER)

    assert told["HostConfig"]["ReadonlyRootfs"] is True
    assert told["EffectiveCaps"] in (None, [])
    assert told["Config"]["User"] == "10001:10001"
    assert {mount["Destination"] for mount in told["Mounts"]} == {"/data", "/models", "/tmp"}


def test_chat_remains_when_the_pod_is_killed(pods, stored):
    before = pods.podman.inspect(SERVER)["State"]["Pid"]
    os.kill(before, signal.SIGKILL)

    until(lambda: pods.podman.inspect(SERVER)["State"]["Pid"] not in {0, before})
    pods.wait_ready()
    assert stored()


def test_chat_remains_when_the_pod_is_replaced(pods, stored):
    pods.podman.run("pod", "rm", "--force", "llm-backend-pod-0")
    pods.play()

    assert stored()


def test_front_end_reaches_the_server_with_the_key_of_the_secret(pods, tmp_path: Path):
    shutil.copy(ROOT / "tests/image/stand_ins/front_end.py", tmp_path)
    (tmp_path / "Dockerfile").write_text(
        f"FROM {BASE_IMAGE}\n"
        "COPY front_end.py /app/\n"
        "RUN install --directory --owner=1000 --group=1000 /app/.next/cache\n"
        'ENTRYPOINT ["/usr/bin/python3", "/app/front_end.py"]\n'
    )
    pods.podman.build(tmp_path, "localhost/chatbot-ui")
    port = free_port()

    pods.play_front_end("localhost/chatbot-ui", port)
    until(lambda: is_ok(f"http://127.0.0.1:{port}/"))
    said = httpx.post(f"http://127.0.0.1:{port}/api/chat", json={"messages": CHATS}, timeout=120)
    chat = said.json()
    assert said.status_code == 200, chat
    stored = pods.client.chat.completions.retrieve(chat["id"])
    assert stored.choices[0].message.content == chat["choices"][0]["message"]["content"]
