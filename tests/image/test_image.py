"""The image: small, cached in layers, and a server that needs no rights."""

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import openai
import pytest

from tests.image.conftest import ROOT
from tests.image.podman import BASE_IMAGE, Podman
from tests.ports import free_port

MB = 1_000_000
KEY = "sk-of-the-test"
HEALTHY_WITHIN_S = 300
CHAT = {"model": "builtin", "messages": [{"role": "user", "content": "Who are you?"}]}

Start = Callable[..., openai.OpenAI]


@pytest.fixture
def start(podman: Podman) -> Iterator[Start]:
    """Starts an image as a container without rights, until its own health check passes."""
    started = []

    def start_image(image: str, name: str) -> openai.OpenAI:
        port, began = free_port(), time.monotonic()
        started.append(name)
        podman.run(
            *("run", "--detach", f"--name={name}", "--network=host", "--read-only"),
            *("--cap-drop=ALL", "--security-opt=no-new-privileges", "--tmpfs=/tmp"),
            *(f"--volume={name}:/data", f"--env=LLM_BACKEND_PORT={port}"),
            *(f"--env=LLM_BACKEND_API_KEYS={KEY}", image),
        )
        wait_healthy(podman, name)
        sys.stderr.write(f"\n{image}: healthy after {time.monotonic() - began:.1f} s\n")
        address = f"http://127.0.0.1:{port}/v1"
        return clients.enter_context(openai.OpenAI(base_url=address, api_key=KEY, timeout=120))

    with ExitStack() as clients:
        yield start_image
    for name in started:
        podman.run("rm", "--force", "--volumes", name, check=False)


def wait_healthy(podman: Podman, name: str) -> None:
    deadline = time.monotonic() + HEALTHY_WITHIN_S
    while "healthy" not in podman.run("healthcheck", "run", name, check=False).split():
        state = podman.inspect(name)["State"]
        if state.get("Health", state.get("Healthcheck"))["Status"] == "healthy":
            return
        assert state["Running"], podman.logs(name)
        assert time.monotonic() < deadline, podman.logs(name)
        time.sleep(0.2)


def test_image_is_smaller_than_600_mb(podman, image):
    assert podman.inspect(image)["Size"] < 600 * MB


def test_image_has_no_compiler_and_no_pip(podman, image):
    found = podman.run(
        *("run", "--rm", "--network=host", "--entrypoint=/bin/sh", image, "-c"),
        "command -v cc gcc g++ pip make; python -m pip --version 2>&1; true",
    )

    assert found.strip() == "/opt/llm-backend/bin/python: No module named pip"


def test_server_runs_as_its_user_without_capabilities_on_a_read_only_root(podman, image, start):
    start(image, "rights")

    status = podman.run("exec", "rights", "cat", "/proc/1/status").splitlines()
    lines = dict(line.split(":\t", 1) for line in status)
    assert lines["Uid"].split() == ["10001"] * 4
    assert {int(lines[name], 16) for name in ("CapPrm", "CapEff", "CapBnd")} == {0}
    assert lines["NoNewPrivs"] == "1"
    write = "touch /opt/x /data/x /tmp/x 2>&1; true"
    refused = podman.run("exec", "rights", "sh", "-c", write).splitlines()
    assert refused == ["touch: cannot touch '/opt/x': Read-only file system"]


def test_official_client_chats_and_finds_its_chat_after_a_restart(podman, image, start):
    client = start(image, "chats")

    chat = client.chat.completions.create(**CHAT, store=True)
    stream = client.chat.completions.create(**CHAT, stream=True)
    streamed = "".join(chunk.choices[0].delta.content or "" for chunk in stream)
    with pytest.raises(openai.AuthenticationError):
        client.with_options(api_key="sk-wrong").models.list()
    podman.run("restart", "--time=60", "chats")
    wait_healthy(podman, "chats")
    stored = client.chat.completions.retrieve(chat.id)

    assert chat.choices[0].message.content == streamed
    assert stored.choices[0].message.content == streamed


def test_server_ends_in_order(podman, image, start):
    start(image, "ends")

    podman.run("stop", "--time=60", "ends")
    assert podman.inspect("ends")["State"]["ExitCode"] == 0
    assert "Traceback" not in podman.logs("ends")


def test_change_of_the_package_makes_one_small_layer(podman, image, wheels, checkout):
    with (checkout / "llm_backend" / "__init__.py").open("a") as module:
        module.write("# changed\n")

    began = time.monotonic()
    log = podman.build(checkout, "localhost/llm-backend:changed", "--target=runtime", *wheels)
    sys.stderr.write(
        f"\nafter a change of the package: built in {time.monotonic() - began:.0f} s\n"
    )

    old = podman.inspect(image)["RootFS"]["Layers"]
    new = podman.inspect("localhost/llm-backend:changed")["RootFS"]["Layers"]
    assert len(new) == len(old)
    assert len({*new} - {*old}) == 1
    assert not any(line.startswith("Building llama.cpp") for line in log.splitlines())
    steps = json.loads(podman.run("history", "--format=json", image))
    package, environment, *_ = [one["size"] for one in steps if "COPY" in one["CreatedBy"]]
    assert package < 30 * MB < environment


def test_image_for_development_serves(podman, image, wheels, start):
    podman.build(ROOT, "localhost/llm-backend:dev", "--target=dev", *wheels)

    client = start("localhost/llm-backend:dev", "development")
    assert client.chat.completions.create(**CHAT, max_tokens=4).choices


def test_image_with_audio_reads_a_text_aloud_and_has_what_hears(podman, image, wheels, start):
    options = ("--target=runtime", "--build-arg=AUDIO=1")
    podman.build(ROOT, "localhost/llm-backend:audio", *options, *wheels)
    size = podman.inspect("localhost/llm-backend:audio")["Size"] / MB
    sys.stderr.write(f"\nwith audio: {size:.0f} MB\n")

    client = start("localhost/llm-backend:audio", "speech")
    audio = client.audio.speech.create(
        model="builtin-voice", voice="nova", input="Hello!", response_format="flac"
    )
    podman.run("exec", "speech", "python", "-c", "import pywhispercpp, sherpa_onnx, webrtcvad")
    assert audio.content.startswith(b"fLaC")


def test_steps_of_the_image_for_gpus_resolve(podman, image, wheels, start, tmp_path: Path):
    """All but the compilation with CUDA, in whose place llama.cpp's wheel of the image is."""
    libraries = "libcudart.so.12 libcublas.so.12 libcublasLt.so.12"
    (tmp_path / "Dockerfile").write_text(
        f"FROM {BASE_IMAGE}\n"
        "RUN mkdir -p /usr/local/cuda/lib64/stubs\n"
        f"RUN cd /usr/local/cuda/lib64 && touch {libraries}\n"
    )
    podman.build(tmp_path, "localhost/cuda-base")
    if not wheels:
        podman.build(ROOT, "localhost/llm-backend:build", "--target=build")
        podman.run("create", "--name=wheels", "localhost/llm-backend:build", "true")
        podman.run("cp", "wheels:/wheels", str(tmp_path))
        wheels = (f"--volume={tmp_path}/wheels:/wheels:ro",)
    podman.build(
        *(ROOT, "localhost/llm-backend:cuda", "--target=cuda"),
        *("--build-arg=CUDA_IMAGE=localhost/cuda-base", *wheels),
    )

    client = start("localhost/llm-backend:cuda", "gpus")
    assert client.chat.completions.create(**CHAT, max_tokens=4).choices
    assert "NVIDIA_VISIBLE_DEVICES=all" in podman.inspect("gpus")["Config"]["Env"]
