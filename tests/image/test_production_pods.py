"""k8s/overlays/prod as pods: what is stored outlives each pod, the database's too.

PostgreSQL is of Debian's package, as its image has to come from a registry. Qdrant and S3 are
stand-ins: tests/qdrant.py in a pod, and moto on this machine.
"""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import openai
import pytest

from tests.deploy.conftest import deployed_alone
from tests.image.conftest import ROOT
from tests.image.podman import BASE_IMAGE, Podman, until
from tests.image.pods import local_claims, local_pods, secret
from tests.image.test_pods import is_ok
from tests.ports import free_port
from tests.s3 import S3Server

KEY = "sk-of-the-secret"
SERVER, DATABASE, VECTORS = "llm-backend", "llm-backend-postgresql", "llm-backend-qdrant"
STAND_INS = ROOT / "tests" / "image" / "stand_ins"
QUESTION = [{"role": "user", "content": "Who are you?"}]
SECRETS = {
    "llm-backend-keys": {"api-key": KEY},
    DATABASE: {"password": "of-the-database"},
    VECTORS: {"api-key": "of-the-vectors"},
    "llm-backend-s3": {"access-key-id": "test", "secret-access-key": "test"},
}
POSTGRESQL = f"""FROM {BASE_IMAGE}
RUN groupadd --gid 999 postgres && useradd --uid 999 --gid 999 --no-create-home postgres
RUN apt-get update && apt-get install --yes --no-install-recommends postgresql \\
    && rm -rf /var/lib/apt/lists/*
RUN install --directory --owner=999 --group=999 /var/lib/postgresql/data /var/run/postgresql
COPY postgresql.sh /
ENTRYPOINT ["/bin/sh", "/postgresql.sh"]
"""
QDRANT = """FROM {image}
COPY qdrant.py qdrant_stand_in.py /app/
USER 1000:1000
ENTRYPOINT ["python", "/app/qdrant_stand_in.py"]
CMD []
"""


@dataclass
class Production:
    """The overlay as pods of this machine, and a client with the key of the secret."""

    podman: Podman
    images: dict[str, str]
    environment: dict[str, str]
    client: openai.OpenAI

    def play(self, *names: str) -> None:
        """Starts these workloads, with the volumes that there are, until the server is ready."""
        for name in names:
            overlay = deployed_alone("overlays/prod")
            manifests = local_pods(overlay, self.images, only=name, **self.environment)
            self.podman.run("kube", "play", "-", given=manifests)
        address = f"http://127.0.0.1:{self.environment['LLM_BACKEND_PORT']}"
        until(lambda: is_ok(f"{address}/readyz"), lambda: self.podman.logs(container(SERVER)))

    def replace(self, name: str) -> None:
        """Kills the pod of a workload, removes it, and starts another."""
        self.podman.run("pod", "kill", f"{name}-pod-0")
        self.podman.run("pod", "rm", "--force", f"{name}-pod-0")
        self.play(name)


def container(workload: str) -> str:
    """The name of a workload's container."""
    return f"{workload}-pod-0-{workload.removeprefix('llm-backend-')}"


@pytest.fixture(scope="module")
def production(
    podman: Podman,
    image: str,
    s3_server: S3Server,
    minilm_file: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Production]:
    """The overlay, played once for the tests of this file, with a model in its volume."""
    folder = tmp_path_factory.mktemp("stand_ins")
    httpx.put(f"{s3_server.address}/llm-backend").raise_for_status()
    for name, values in SECRETS.items():
        podman.run("secret", "create", name, "-", given=secret(**values))
    podman.run("kube", "play", "-", given=local_claims(deployed_alone("overlays/prod")))
    models = podman.inspect_volume("llm-backend-models")["Mountpoint"]
    shutil.copy(minilm_file, Path(models) / "embedder.gguf")
    environment = settings(s3_server)
    address = f"http://127.0.0.1:{environment['LLM_BACKEND_PORT']}/v1"
    images = build_images(podman, image, folder)
    with openai.OpenAI(base_url=address, api_key=KEY, timeout=120) as client:
        production = Production(podman, images, environment, client)
        production.play(DATABASE, VECTORS, SERVER)
        yield production
    podman.remove_all()


def settings(s3_server: S3Server) -> dict[str, str]:
    """The places of servers that have no Service here, and models that are here."""
    ports = {name: str(free_port()) for name in ("server", "database", "vectors")}
    return {
        "LLM_BACKEND_PORT": ports["server"],
        "PGPORT": ports["database"],
        "QDRANT__SERVICE__HTTP_PORT": ports["vectors"],
        "LLM_BACKEND_DATABASE_URL":
            f"postgresql://llm_backend@127.0.0.1:{ports['database']}/llm_backend",
        "LLM_BACKEND_QDRANT_URL": f"http://127.0.0.1:{ports['vectors']}",
        "LLM_BACKEND_MODELS": "builtin,/models/embedder.gguf",
        "AWS_ENDPOINT_URL": s3_server.address,
        "AWS_ALLOW_HTTP": "true",
    }  # fmt: skip


def build_images(podman: Podman, image: str, folder: Path) -> dict[str, str]:
    """Images by the names of their containers."""
    shutil.copy(STAND_INS / "postgresql.sh", folder)
    shutil.copy(STAND_INS / "qdrant_stand_in.py", folder)
    shutil.copy(ROOT / "tests" / "qdrant.py", folder)
    images = {"llm-backend": image}
    for name, text in (("postgresql", POSTGRESQL), ("qdrant", QDRANT.format(image=image))):
        (folder / "Dockerfile").write_text(text)
        images[name] = f"localhost/{name}"
        podman.build(folder, images[name], has_index=False)
    return images


def test_stores_of_production_have_the_restrictions_of_their_manifests(production):
    for workload, user in ((DATABASE, "999:999"), (VECTORS, "1000:1000"), (SERVER, "10001:10001")):
        told = production.podman.inspect(container(workload))
        assert told["HostConfig"]["ReadonlyRootfs"] is True
        assert told["EffectiveCaps"] in (None, [])
        assert told["Config"]["User"] == user


def test_chat_and_file_outlive_the_pods_of_server_and_database(production):
    client = production.client
    chat = client.chat.completions.create(model="gpt-3.5-turbo", messages=QUESTION, store=True)
    store = client.vector_stores.create(name="notes")
    file = client.files.create(file=("note.txt", b"The key is under the mat."), purpose="user_data")
    added = client.vector_stores.files.create_and_poll(file.id, vector_store_id=store.id)
    assert added.status == "completed", added

    for name in (SERVER, DATABASE):
        production.replace(name)
        found = client.chat.completions.retrieve(chat.id)
        assert found.choices[0].message.content == chat.choices[0].message.content
        assert client.files.content(file.id).read() == b"The key is under the mat."
        hits = client.vector_stores.search(store.id, query="Where is the key?")
        assert [hit.file_id for hit in hits] == [file.id]
    log = production.podman.logs(container(SERVER))
    assert "Traceback" not in log
