"""Images drawn by a served process with a local model, and the official client: by
stable-diffusion.cpp where it is installed, else by a stand-in of its C functions (see
`tests/tiny_diffusion.py`)."""

import asyncio
import base64
import io
import json
import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from PIL import Image

from tests.patience import wait_until
from tests.serving import Served, serve
from tests.strict_sdk import StrictOpenAI
from tests.tiny_diffusion import use_library, write_tiny_diffusion

SIDE = 64
LONG, SHORT = {"quality": "high"}, {"quality": "low"}
CONFIG = """
image_models:
  tiny:
    steps: {low: 1, medium: 4, high: 400}
    parameters: {cfg_scale: 1, seed: 7, width: 64, height: 64}
  network: {clip_l: part.gguf}
prices: {tiny: {image: 0.25}}
"""


@pytest.fixture(scope="module")
def painter(tmp_path_factory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("painter")
    models = folder / "models"
    write_tiny_diffusion(models / "tiny.gguf")
    write_tiny_diffusion(models / "network.gguf", without="tae.")
    (models / "part.gguf").write_bytes(b"a text encoder")
    (folder / "config.yaml").write_text(CONFIG)
    flags = ("--model", "builtin", "--serve-models-folder", "--alias", "gpt-image-1=tiny")
    with pytest.MonkeyPatch.context() as patch:
        environment = {"LLM_BACKEND_THREADS": "1", **use_library(patch)}
        config = ("--config", str(folder / "config.yaml"))
        with serve(folder, *flags, *config, environment=environment) as served:
            yield served


@pytest.fixture
def client(painter) -> Iterator[openai.OpenAI]:
    with StrictOpenAI(base_url=painter.base_url, api_key="none", max_retries=0) as one:
        yield one


def post(painter: Served, path: str = "generations", **fields: Any) -> httpx.Response:
    body = {"model": "tiny", "prompt": "a cat", "quality": "low", **fields}
    return httpx.post(f"{painter.base_url}/images/{path}", json=body, timeout=120)


def opened(data: str | None, format: str = "PNG") -> Image.Image:
    image = Image.open(io.BytesIO(base64.b64decode(data or "")))
    assert image.format == format
    return image


def png(colour: int, size: tuple[int, int] = (SIDE, SIDE), alpha: int = 255) -> bytes:
    file = io.BytesIO()
    Image.new("RGBA", size, (colour, colour, colour, alpha)).save(file, "png")
    return file.getvalue()


def status(painter: Served) -> dict[str, Any]:
    with httpx.stream("GET", f"{painter.address}/status", timeout=60) as answer:
        line = next(one for one in answer.iter_lines() if one.startswith("data: "))
    return dict(json.loads(line.removeprefix("data: ")))


def test_images_are_equal_for_a_seed_and_differ_among_themselves(client):
    fields: Any = {"model": "gpt-image-1", "prompt": "a cat", "quality": "low"}
    one = client.images.generate(**fields)
    two = client.images.generate(**fields, n=2, output_format="jpeg", output_compression=90)

    assert client.images.generate(**fields).data == one.data
    assert one.data
    assert opened(one.data[0].b64_json).size == (SIDE, SIDE)
    assert (one.size, one.usage and one.usage.total_tokens) == ("64x64", 0)
    first, second = (opened(one.b64_json, "JPEG").tobytes() for one in two.data or ())
    assert first != second


def test_a_size_beyond_the_planned_memory_is_refused_with_the_value_that_it_needs(painter):
    error = post(painter, size="1792x1024").json()["error"]

    assert (error["code"], error["param"]) == ("invalid_value", "size")
    assert "the limit is 1,572,864" in error["message"]
    assert "`pixels_limit: 1835008` in `image_models`" in error["message"]


def test_a_stream_has_previews_and_metrics_count_its_image(client, painter):
    stream = client.images.generate(
        model="tiny", prompt="a cat", stream=True, partial_images=2, size="128x64"
    )
    events = list(stream)
    kinds = [one.type.rpartition(".")[2] for one in events]
    metrics = httpx.get(f"{painter.address}/metrics").text

    assert kinds[-1] == "completed"
    assert set(kinds[:-1]) == {"partial_image"}
    assert {opened(one.b64_json).size for one in events} == {(128, SIDE)}
    assert 'llm_backend_drawn_images_total{model="tiny"}' in metrics


def test_an_image_counts_for_the_model_that_drew_it_and_costs_its_price(client, painter):
    before = counted(painter)
    tool: Any = {"type": "image_generation", "model": "tiny", "quality": "low"}
    client.images.generate(model="gpt-image-1", prompt="a cat", quality="low", n=2)
    list(client.images.generate(model="tiny", prompt="a cat", quality="low", stream=True))
    client.images.edit(model="tiny", prompt="a red door", quality="low", image=png(0))
    with pytest.warns(DeprecationWarning, match="deprecated"):
        client.images.create_variation(model="tiny", image=png(0))
    refused = post(painter, style="vivid")
    failed = post(painter, model="network")
    drawn = client.responses.create(
        model="builtin", input="Draw a cat.", tools=[tool], tool_choice="required",
        temperature=0, max_output_tokens=400, max_tool_calls=1,
    )  # fmt: skip
    calls = [one for one in drawn.output if one.type == "image_generation_call"]
    counts = {"image.generation": 3 + len(calls), "image.edit": 1, "image.variation": 1}

    assert (refused.status_code, failed.status_code) == (400, 501)
    assert calls
    assert counted(painter) - before == Counter(
        dollars=0.25 * sum(counts.values()), metric=sum(counts.values()), **counts
    )


def test_edits_and_variations_are_counted_under_their_sizes(client, painter):
    size: Any = "256x256"
    client.images.edit(model="tiny", prompt="a door", quality="low", image=png(0), size=size)
    with pytest.warns(DeprecationWarning, match="deprecated"):
        client.images.create_variation(model="tiny", image=png(0), size=size)
    query = {"start_time": int(time.time()) - 86_400, "sizes": size, "group_by": "source"}
    found = httpx.get(f"{painter.base_url}/organization/usage/images", params=query).json()
    results = [one for bucket in found["data"] for one in bucket["results"]]

    assert {one["source"]: one["images"] for one in results} == {
        "image.edit": 1, "image.variation": 1
    }  # fmt: skip


def counted(painter: Served) -> Counter[str]:
    """Images of the model `tiny` by the source of their usage and by the metric, and dollars."""
    counts: Counter[str] = Counter()
    since = {"start_time": int(time.time()) - 86_400}
    with httpx.Client(base_url=painter.base_url, timeout=60) as client:
        by = {"group_by": ["model", "source"], "models": "tiny"}
        for bucket in client.get("/organization/usage/images", params=since | by).json()["data"]:
            counts.update({one["source"]: one["images"] for one in bucket["results"]})
        by = {"group_by": "line_item"}
        for bucket in client.get("/organization/costs", params=since | by).json()["data"]:
            priced = [one for one in bucket["results"] if one["line_item"] == "tiny, images"]
            counts.update(dollars=sum(one["amount"]["value"] for one in priced))
    lines = httpx.get(f"{painter.address}/metrics").text.splitlines()
    name = 'llm_backend_drawn_images_total{model="tiny"} '
    counts["metric"] = sum(int(float(one[len(name) :])) for one in lines if one.startswith(name))
    return counts


def test_edits_and_variations_begin_with_an_image(client):
    fields: Any = {"model": "tiny", "prompt": "a red door"}
    edits = {
        client.images.edit(**fields, image=png(0)).data[0].b64_json,
        client.images.edit(**fields, image=png(255)).data[0].b64_json,
        client.images.edit(**fields, image=png(255), mask=png(0, alpha=0)).data[0].b64_json,
    }
    with pytest.warns(DeprecationWarning, match="deprecated"):
        varied = client.images.create_variation(model="tiny", image=png(0, (100, 70)))

    assert len(edits) >= 2  # a whole mask is as none
    assert opened(varied.data[0].b64_json).size == (SIDE, SIDE)  # in blocks of the model


@pytest.mark.parametrize(
    ("param", "fields"),
    [
        ("size", {"size": "72x64"}),
        ("size", {"size": "8192x8192"}),
        ("background", {"background": "transparent"}),
        ("partial_images", {"partial_images": 2}),
        ("style", {"style": "vivid"}),
    ],
)
def test_an_unsupported_image_is_refused_by_its_field(painter, param, fields):
    answer = post(painter, **fields)

    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


def test_a_mask_of_another_size_is_refused(client):
    with pytest.raises(openai.BadRequestError) as refused:
        client.images.edit(model="tiny", prompt="", image=png(0), mask=png(0, (32, 32), 0))

    assert refused.value.param == "mask"


def test_a_model_names_the_parts_that_it_lacks_and_a_part_is_no_model(painter, client):
    answer = post(painter, model="network")

    assert answer.status_code == 501
    assert "`image_models` names: {network: {vae: FILE}}" in answer.json()["error"]["message"]
    assert {"tiny", "network"} <= {one.id for one in client.models.list()}
    assert "part" not in {one.id for one in client.models.list()}


def test_it_draws_only_and_language_models_do_not(painter, client):
    with pytest.raises(openai.BadRequestError, match="for drawing images"):
        client.chat.completions.create(model="tiny", messages=[{"role": "user", "content": "Hi"}])
    answer = post(painter, model="builtin")

    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "model")


def test_the_tool_of_responses_draws_with_it(client):
    tool: Any = {"type": "image_generation", "model": "tiny", "quality": "low"}
    answer = client.responses.create(
        model="builtin", input="Draw a cat.", tools=[tool], tool_choice="required",
        temperature=0, max_output_tokens=400, max_tool_calls=1,
    )  # fmt: skip
    calls = [one for one in answer.output if one.type == "image_generation_call"]

    assert [one.status for one in calls][:1] == ["completed"]
    assert opened(calls[0].result).size == (SIDE, SIDE)


async def test_a_client_that_leaves_frees_the_model_for_the_next_one(painter):
    assert post(painter).status_code == 200
    (before,) = workers_of(painter)
    begin = len(painter.log.read_text())  # other tests' lines end here
    wait_until(lambda: not is_drawing(painter))  # the status may be half a second old
    async with httpx.AsyncClient(base_url=painter.base_url, timeout=120) as client:
        body = {"model": "tiny", "prompt": "a cat"}
        left = asyncio.create_task(client.post("/images/generations", json={**body, **LONG}))
        await asyncio.to_thread(wait_until, lambda: is_drawing(painter))
        waiting = asyncio.create_task(client.post("/images/generations", json={**body, **SHORT}))
        left.cancel()

        assert (await waiting).status_code == 200
    log = painter.log.read_text()[begin:]
    assert before not in painter.workers()
    assert ("engine_restarted" in log, "engine_died" in log) == (True, False)


def test_a_killed_worker_is_a_503_and_the_next_request_is_drawn(painter):
    wait_until(lambda: not is_drawing(painter))
    with ThreadPoolExecutor(1) as pool:
        lost = pool.submit(post, painter, quality="high")
        wait_until(lambda: is_drawing(painter))
        for pid in workers_of(painter):
            os.kill(pid, signal.SIGKILL)

        assert lost.result().status_code == 503
    assert lost.result().headers["retry-after"]
    assert post(painter).status_code == 200


def workers_of(painter: Served) -> list[int]:
    """The workers that draw: those without the library of language models in memory."""
    maps = {pid: Path(f"/proc/{pid}/maps").read_text() for pid in painter.workers()}
    return [pid for pid, text in maps.items() if "libllama" not in text]


def is_drawing(painter: Served) -> bool:
    return any(one["progress"] for one in status(painter)["drawings"])
