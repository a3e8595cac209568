"""Images of a fake image server, through the whole application and the official client."""

import asyncio
import base64
import contextlib
import io
import json
import threading
import time
from collections.abc import AsyncIterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from PIL import ExifTags, Image

from llm_backend.backends.images import image_files
from llm_backend.backends.upstream import pool
from llm_backend.store import FileStore, StoredFile, StoreUnavailable
from tests.gateway import backend, closed_port, gateway
from tests.image_server import FakeImageServer, decoded, image_file
from tests.patience import comes_true
from tests.strict_sdk import StrictAsyncOpenAI
from tests.upstream import FakeUpstream

Answer = dict[str, Any]


def yesterday() -> int:
    return int(time.time()) - 86_400


@contextlib.asynccontextmanager
async def drawn_by(
    folder: Path,
    server: FakeImageServer,
    *,
    of: Answer | None = None,
    more: Sequence[Answer] = (),
    **settings: Any,
) -> AsyncIterator[StrictAsyncOpenAI]:
    """A client of the application in front of this image server, whose further settings are `of`,
    and of the backends `more`."""
    given = {"allowed_hosts": ("127.0.0.1",), **settings}
    async with (
        server,
        gateway(folder, backends=[server.backend(**of or {}), *more], **given) as served,
    ):
        base_url = f"http://127.0.0.1:{served.port}/v1"
        async with StrictAsyncOpenAI(base_url=base_url, api_key="none", max_retries=0) as client:
            yield client


@contextlib.asynccontextmanager
async def refused(code: str, param: str | None, status: int = 400) -> AsyncIterator[None]:
    with pytest.raises(openai.APIStatusError) as caught:
        yield
    body: Any = caught.value.body
    assert (caught.value.status_code, body["code"], body["param"]) == (status, code, param)


async def test_a_text_becomes_images_of_the_requested_size_model_and_quality(tmp_path):
    server = FakeImageServer()
    models = {"sd-one": {"steps": {"high": 33}, "parameters": {"cfg_scale": 2}}}
    async with drawn_by(tmp_path, server, image_models=models) as client:
        answer = await client.images.generate(
            model="sd-one", prompt="a cat", n=2, size="256x512", quality="high", user="u"
        )

    assert [decoded(one.b64_json or "").size for one in answer.data or ()] == [(256, 512)] * 2
    assert (answer.size, answer.quality, answer.output_format) == ("256x512", "high", "png")
    assert answer.usage is not None
    assert answer.usage.total_tokens == 0
    [(path, fields)] = server.drawings
    assert path == "txt2img"
    title = "sd-one.safetensors [0123abcd]"
    assert fields["override_settings"] == {"sd_model_checkpoint": title}
    expected = {"prompt": "a cat", "n_iter": 2, "width": 256, "steps": 33, "cfg_scale": 2}
    assert expected.items() <= fields.items()


async def test_moderation_takes_both_values_changes_nothing_and_refuses_others(tmp_path):
    server = FakeImageServer()
    fields: Any = {"model": "sd-one", "prompt": "a cat"}
    async with drawn_by(tmp_path, server) as client:
        for given in ({}, {"moderation": "auto"}, {"moderation": "low"}):
            await client.images.generate(**fields, **given)
        with pytest.raises(openai.BadRequestError) as caught:
            await client.post(
                "/images/generations", body={**fields, "moderation": "none"}, cast_to=object
            )

    plain, *others = server.drawings
    assert others == [plain] * 2
    assert caught.value.param == "moderation"


async def test_a_whole_number_may_be_written_with_a_point(tmp_path):
    server = FakeImageServer()
    fields = {"model": "sd-one", "prompt": "a cat", "output_format": "webp"}
    async with drawn_by(tmp_path, server) as client:
        answer = await client.post(
            "/images/generations",
            body={**fields, "n": 2.0, "output_compression": 50.0},
            cast_to=httpx.Response,
        )

    assert len(answer.json()["data"]) == 2


async def test_the_size_auto_is_the_servers_own(tmp_path):
    server = FakeImageServer()
    async with drawn_by(tmp_path, server) as client:
        answer = await client.images.generate(model="sd-one", prompt="a cat", size="auto")

    assert answer.size == "512x512"
    assert "width" not in server.drawings[0][1]


async def test_a_server_that_draws_one_image_a_request_gets_one_request_for_each(tmp_path):
    server = FakeImageServer(per_request=1)
    async with drawn_by(tmp_path, server) as client:
        answer = await client.images.generate(model="sd-one", prompt="a cat", n=3)

    assert len(answer.data or ()) == 3
    assert [fields["n_iter"] for _, fields in server.drawings] == [3, 2, 1]


async def test_images_are_converted_to_the_requested_format(tmp_path):
    async with drawn_by(tmp_path, FakeImageServer()) as client:
        sizes = []
        for format in ("jpeg", "webp"):
            for compression in (90, 5):
                answer = await client.images.generate(
                    model="sd-one", prompt="x", output_format=format, output_compression=compression
                )
                image = (answer.data or [])[0].b64_json or ""
                assert (decoded(image).format or "").lower() == answer.output_format == format
                sizes.append(len(image))

    assert sizes[1] < sizes[0]


async def test_an_image_behind_a_url_is_a_file_behind_the_key(tmp_path):
    async with drawn_by(tmp_path, FakeImageServer()) as client:
        answer = await client.images.generate(
            model="sd-one", prompt="x", response_format="url", output_format="jpeg"
        )
        url = (answer.data or [])[0].url or ""
        found = await client.get(url, cast_to=httpx.Response)
        files = [file async for file in client.files.list()]
        await client.files.delete(files[0].id)
        async with refused("not_found", None, 404):
            await client.get(url, cast_to=httpx.Response)

    assert found.headers["content-type"] == "image/jpeg"
    assert decoded(found.content).size == (512, 512)
    assert [file.purpose for file in files] == ["vision"]


async def test_images_behind_urls_are_all_stored_or_none(tmp_path):
    limit_bytes = 1 << 20
    async with drawn_by(tmp_path, FakeImageServer(), files_limit_bytes=limit_bytes) as client:
        drawn = await client.images.generate(model="sd-one", prompt="x")
        size_bytes = len(base64.b64decode((drawn.data or [])[0].b64_json or ""))
        other = bytes(limit_bytes - size_bytes * 3 // 2)  # one image fits beside it, two do not
        await client.files.create(file=other, purpose="user_data")
        async with refused("storage_full", None, 413):
            await client.images.generate(model="sd-one", prompt="x", response_format="url", n=2)
        files = [file.purpose async for file in client.files.list()]

    assert files == ["user_data"]


async def test_images_behind_urls_are_deleted_if_one_cannot_be_stored(tmp_path, monkeypatch):
    add, added = FileStore.add, []

    async def add_one(store: FileStore, file: StoredFile) -> None:
        if added:
            raise StoreUnavailable("The database is gone.")
        added.append(file.id)
        await add(store, file)

    async with drawn_by(tmp_path, FakeImageServer()) as client:
        with monkeypatch.context() as patch:
            patch.setattr(FileStore, "add", add_one)
            with pytest.raises(openai.InternalServerError):
                await client.images.generate(model="sd-one", prompt="x", response_format="url", n=2)
        files = [file.id async for file in client.files.list()]

    assert len(added) == 1
    assert files == []


async def test_the_url_of_an_image_begins_with_the_public_one(tmp_path):
    public = "https://models.example.org/ai/"
    async with drawn_by(tmp_path, FakeImageServer(), public_url=public) as client:
        answer = await client.images.generate(model="sd-one", prompt="x", response_format="url")

    url = (answer.data or [])[0].url or ""
    assert url.startswith("https://models.example.org/ai/v1/files/file-")


async def test_a_stream_has_previews_and_then_the_image(tmp_path):
    server = FakeImageServer(is_held=True)
    async with drawn_by(tmp_path, server) as client:
        stream = await client.images.generate(
            model="sd-one", prompt="x", stream=True, partial_images=2, output_format="webp"
        )
        events = []
        async for event in stream:
            events.append(event)
            if len(events) == 1:
                server.preview = "green"
            else:
                server.release.set()

    kinds = [event.type for event in events]
    assert kinds == [
        "image_generation.partial_image",
        "image_generation.partial_image",
        "image_generation.completed",
    ]
    assert [getattr(event, "partial_image_index", None) for event in events] == [0, 1, None]
    assert {event.output_format for event in events} == {"webp"}
    assert decoded(events[1].b64_json).size == (64, 64)
    assert events[-1].size == "512x512"


@pytest.mark.parametrize("settings", [{"has_progress": False}, {"preview": None}, {"share": 0.1}])
async def test_a_server_without_previews_streams_its_images(tmp_path, settings):
    server = FakeImageServer(is_held=True, **settings)

    async def release_when_asked() -> None:
        assert await comes_true(
            lambda: any(b"progress" in r.first_line for r in server.requests), within_s=30
        )
        server.release.set()

    async with drawn_by(tmp_path, server) as client:
        releasing = asyncio.create_task(release_when_asked())
        stream = await client.images.generate(
            model="sd-one", prompt="x", n=2, stream=True, partial_images=1
        )
        kinds = [event.type async for event in stream]
        await releasing

    assert kinds == ["image_generation.completed"] * 2


async def test_an_invalid_preview_does_not_end_the_stream(tmp_path, capsys):
    server = FakeImageServer(is_held=True, preview_file=b"no image")

    async def release_after_the_preview() -> None:
        assert await comes_true(
            lambda: sum(b"progress" in r.first_line for r in server.requests) > 1, within_s=30
        )
        server.release.set()

    async with drawn_by(tmp_path, server) as client:
        releasing = asyncio.create_task(release_after_the_preview())
        stream = await client.images.generate(
            model="sd-one", prompt="x", stream=True, partial_images=2
        )
        kinds = [event.type async for event in stream]
        await releasing

    assert kinds == ["image_generation.completed"]
    assert "preview_invalid" in capsys.readouterr().err


async def test_a_progress_request_without_an_answer_does_not_hold_back_the_image(tmp_path):
    server = FakeImageServer(is_held=True, may_answer_progress=asyncio.Event())

    async def release_when_asked() -> None:
        assert await comes_true(
            lambda: any(b"progress" in r.first_line for r in server.requests), within_s=30
        )
        server.release.set()

    async with drawn_by(tmp_path, server) as client, asyncio.timeout(30):
        releasing = asyncio.create_task(release_when_asked())
        stream = await client.images.generate(
            model="sd-one", prompt="x", stream=True, partial_images=1
        )
        kinds = [event.type async for event in stream]
        await releasing

    assert kinds == ["image_generation.completed"]


async def test_previews_are_not_read_where_several_requests_are_drawn_at_once(tmp_path):
    server = FakeImageServer(is_held=True)
    async with drawn_by(tmp_path, server, of={"concurrency": 2}) as client:
        streaming = asyncio.create_task(
            client.images.generate(model="sd-one", prompt="x", stream=True, partial_images=1)
        )
        assert await comes_true(lambda: bool(server.drawings), within_s=30)
        server.release.set()
        kinds = [event.type async for event in await streaming]

    assert kinds == ["image_generation.completed"]
    assert not any(b"progress" in request.first_line for request in server.requests)


@pytest.mark.parametrize("streams", [False, True])
async def test_a_client_that_leaves_interrupts_the_drawing(tmp_path, streams):
    server = FakeImageServer(is_held=True)
    async with drawn_by(tmp_path, server) as client:
        asking = asyncio.create_task(
            client.images.generate(
                model="sd-one",
                prompt="x",
                stream=streams,
                partial_images=3 if streams else None,
            )
        )
        assert await comes_true(lambda: bool(server.drawings), within_s=30)
        if streams:
            stream = await asking
            await anext(aiter(stream))
            await stream.close()
        else:
            asking.cancel()

        assert await comes_true(lambda: server.interrupted == 1, within_s=30)
        server.is_held = False
        again = await client.images.generate(model="sd-one", prompt="y")

    assert len(again.data or ()) == 1


async def test_the_next_image_waits_until_an_interruption_is_answered(tmp_path):
    server = FakeImageServer(is_held=True, may_answer_interrupts=asyncio.Event())
    async with drawn_by(tmp_path, server) as client:
        leaving = asyncio.create_task(client.images.generate(model="sd-one", prompt="x"))
        assert await comes_true(lambda: bool(server.drawings), within_s=30)
        waiting = asyncio.create_task(client.images.generate(model="sd-one", prompt="y"))
        leaving.cancel()
        assert await comes_true(lambda: server.interrupted == 1, within_s=30)

        assert not await comes_true(lambda: len(server.drawings) == 2, within_s=0.3)
        server.may_answer_interrupts.set()
        assert len((await waiting).data or ()) == 1


async def outstanding(client: StrictAsyncOpenAI, upstream: str) -> float:
    """The requests that an upstream is answering, by the metrics."""
    name = f'llm_backend_upstream_outstanding{{upstream="{upstream}"}} '
    async with httpx.AsyncClient() as asking:
        text = (await asking.get(str(client.base_url.join("/metrics")), timeout=30)).text
    return sum(float(line.removeprefix(name)) for line in text.splitlines() if name in line)


async def test_a_server_that_refused_an_image_is_not_interrupted(tmp_path, monkeypatch):
    refusing, drawing = FakeImageServer(answer=lambda _: (429, {})), FakeImageServer(is_held=True)
    async with drawing:
        backends = [drawing.backend(name="other")]
        async with drawn_by(tmp_path, refusing, more=backends) as client:
            first = asyncio.create_task(client.images.generate(model="sd-one", prompt="x"))
            assert await comes_true(lambda: bool(drawing.drawings), within_s=30)
            monkeypatch.setattr(pool, "backoff_s", lambda *_: 60.0)  # it is not asked twice
            leaving = asyncio.create_task(client.images.generate(model="sd-one", prompt="y"))
            assert await comes_true(
                lambda: any(fields["prompt"] == "y" for _, fields in refusing.drawings), within_s=30
            )
            async with asyncio.timeout(30):
                while await outstanding(client, "painter"):
                    continue  # until the refusal is read
            leaving.cancel()
            was_interrupted = await comes_true(lambda: bool(refusing.interrupted), within_s=0.3)
            drawing.release.set()
            await first

    assert not was_interrupted
    assert not drawing.interrupted


def masked(size: tuple[int, int], hole: tuple[int, int, int, int]) -> bytes:
    """A mask whose hole is transparent."""
    mask = Image.new("RGBA", size, (0, 0, 0, 255))
    mask.paste((0, 0, 0, 0), hole)
    file = io.BytesIO()
    mask.save(file, "PNG")
    return file.getvalue()


async def test_an_edit_draws_again_what_the_mask_leaves_open(tmp_path):
    server = FakeImageServer()
    async with drawn_by(tmp_path, server) as client:
        answer = await client.images.edit(
            model="sd-one",
            image=("a.jpg", image_file("red", (130, 70), format="JPEG")),
            mask=("m.png", masked((130, 70), (10, 20, 30, 40))),
            prompt="a hat",
            n=2,
            quality="low",
        )
        usage = await client.get(
            f"/organization/usage/images?start_time={yesterday()}", cast_to=httpx.Response
        )

    assert len(answer.data or ()) == 2
    [(path, fields)] = server.drawings
    mask = decoded(fields["mask"])
    assert path == "img2img"
    assert (decoded(fields["init_images"][0]).size, mask.size) == ((130, 70), (130, 70))
    assert [mask.getpixel(at) for at in ((15, 25), (5, 5))] == [255, 0]
    assert (fields["width"], fields["height"], fields["steps"]) == (128, 64, 10)
    [bucket] = [one for one in usage.json()["data"] if one["results"]]
    assert bucket["results"][0]["images"] == 2


async def test_two_images_of_all_requests_are_decoded_at_once(tmp_path, monkeypatch):
    read_source, meeting = image_files.read_source, threading.Barrier(3)
    have_met: list[bool] = []

    def read(data: bytes, *, limit: int) -> image_files.SourceImage:
        with contextlib.suppress(threading.BrokenBarrierError):
            meeting.wait(0.2)
            have_met.append(True)
        return read_source(data, limit=limit)

    monkeypatch.setattr(image_files, "read_source", read)
    image = ("a.png", image_file("red", (64, 64)))
    async with drawn_by(tmp_path, FakeImageServer()) as client:
        await asyncio.gather(*(
            client.images.edit(model="sd-one", image=image, prompt="a hat") for _ in range(4)
        ))  # fmt: skip

    assert not have_met


async def test_a_grey_image_of_16_bits_keeps_its_shades(tmp_path):
    shade = image_file(20_000, (64, 64), mode="I;16")
    server = FakeImageServer()
    server.answer = lambda _: (200, {"images": [base64.b64encode(shade).decode()]})
    async with drawn_by(tmp_path, server) as client:
        answer = await client.images.edit(
            model="sd-one", image=("a.png", shade), prompt="a hat", output_format="jpeg"
        )

    source = decoded(server.drawings[0][1]["init_images"][0])
    drawn = decoded((answer.data or [])[0].b64_json or "")
    assert source.getpixel((5, 5)) == (78, 78, 78)
    assert drawn.getpixel((5, 5)) == 78


async def test_transparency_of_the_image_is_the_mask_of_an_edit_without_one(tmp_path):
    server = FakeImageServer()
    async with drawn_by(tmp_path, server) as client:
        await client.images.edit(
            model="sd-one", image=[("a.png", masked((64, 64), (0, 0, 8, 8)))], prompt="a hat"
        )
        await client.images.edit(
            model="sd-one", image=("a.png", image_file("red", (64, 64))), prompt="a hat"
        )
        with pytest.warns(DeprecationWarning, match="deprecated"):
            await client.images.create_variation(
                model="sd-one", image=("a.png", masked((64, 64), (0, 0, 8, 8))), size="256x256"
            )

    (_, first), (_, second), (_, third) = server.drawings
    assert decoded(first["mask"]).getpixel((4, 4)) == 255
    assert ("mask" in second, "mask" in third) == (False, False)
    assert (third["prompt"], third["width"]) == ("", 256)


async def test_a_mask_is_turned_upright_as_its_image(tmp_path):
    server, turned = FakeImageServer(), Image.Exif()
    turned[ExifTags.Base.Orientation] = 6  # its left is the top of the upright image
    with Image.open(io.BytesIO(masked((128, 64), (0, 0, 8, 64)))) as drawn:
        file = io.BytesIO()
        drawn.save(file, "PNG", exif=turned)
    async with drawn_by(tmp_path, server) as client:
        await client.images.edit(
            model="sd-one",
            image=("a.png", file.getvalue()),
            mask=("m.png", file.getvalue()),
            prompt="a hat",
        )

    [(_, fields)] = server.drawings
    source, mask = decoded(fields["init_images"][0]), decoded(fields["mask"])
    assert (source.size, mask.size) == ((64, 128), (64, 128))
    assert [mask.getpixel(at) for at in ((32, 4), (4, 64))] == [255, 0]


async def test_an_edit_streams_events_of_its_own(tmp_path):
    async with drawn_by(tmp_path, FakeImageServer()) as client:
        stream = await client.images.edit(
            model="sd-one",
            image=("a.png", image_file("red", (64, 64))),
            prompt="a hat",
            stream=True,
        )
        events = [event async for event in stream]

    assert [event.type for event in events] == ["image_edit.completed"]


async def test_an_edit_as_json_refers_to_files_and_data_urls(tmp_path):
    server = FakeImageServer()
    async with drawn_by(tmp_path, server) as client:
        file = await client.files.create(
            file=("a.png", image_file("red", (64, 128))), purpose="vision"
        )
        mask = base64.b64encode(masked((64, 128), (0, 0, 8, 8))).decode()
        body = {
            "model": "sd-one",
            "prompt": "a hat",
            "images": [{"file_id": file.id}],
            "mask": {"image_url": f"data:image/png;base64,{mask}"},
        }
        answer = await client.post("/images/edits", body=body, cast_to=httpx.Response)
        for image, code, param in (
            ({"file_id": "file-none"}, "image_file_not_found", "images[0].file_id"),
            ({"image_url": "http://127.0.0.1/x.png"}, "invalid_image_url", "images[0].image_url"),
            ({"image_url": "data:image/png;base64,!"}, "invalid_value", "images[0].image_url"),
            ({"image_url": ""}, "invalid_value", "images[0].image_url"),
        ):
            async with refused(code, param):
                await client.post(
                    "/images/edits", body={**body, "images": [image]}, cast_to=httpx.Response
                )
        async with refused("unsupported_parameter", "images"):
            more = {**body, "images": body["images"] * 2}
            await client.post("/images/edits", body=more, cast_to=httpx.Response)

    assert len(answer.json()["data"]) == 1
    assert decoded(server.drawings[0][1]["init_images"][0]).size == (64, 128)


REFUSED_FIELDS: list[tuple[Any, ...]] = [
    ({"background": "transparent"}, "unsupported_parameter", "background"),
    ({"style": "natural"}, "unsupported_parameter", "style"),
    ({"size": "big"}, "invalid_value", "size"),
    ({"size": "100x100"}, "invalid_value", "size"),
    ({"size": "8x512"}, "invalid_value", "size"),
    ({"size": "8192x8192"}, "invalid_value", "size"),
    ({"partial_images": 1}, "invalid_value", "partial_images"),
    ({"output_compression": 50}, "invalid_value", "output_compression"),
    (
        {"output_compression": 101, "output_format": "jpeg"},
        "invalid_value",
        "output_compression",
    ),
    ({"stream": True, "response_format": "url"}, "invalid_value", "response_format"),
    ({"n": 11}, "integer_above_max_value", "n"),
    ({"quality": "best"}, "invalid_value", "quality"),
]


async def test_fields_that_an_image_server_cannot_honour_are_refused_by_name(tmp_path):
    server = FakeImageServer()
    async with drawn_by(tmp_path, server) as client:
        for fields, code, param in REFUSED_FIELDS:
            async with refused(code, param):
                await client.images.generate(model="sd-one", prompt="x", **fields)

    assert not server.drawings


REFUSED_FILES: list[tuple[Any, ...]] = [
    ({"image": b"no image"}, "unsupported_image_media_type", "image"),
    ({"image": image_file("red", (3000, 3000))}, "image_too_large", "image"),
    (
        {"image": image_file("red", (64, 64)), "mask": masked((64, 65), (0, 0, 1, 1))},
        "image_size_mismatch",
        "mask",
    ),
    (
        {"image": image_file("red", (64, 64)), "mask": image_file("red", (64, 64))},
        "invalid_image_mask",
        "mask",
    ),
]


async def test_files_that_cannot_be_drawn_on_are_refused_by_name(tmp_path):
    server = FakeImageServer()
    async with drawn_by(tmp_path, server, image_limit_pixels=1_000_000) as client:
        for files, code, param in REFUSED_FILES:
            named = {name: (f"{name}.png", data) for name, data in files.items()}
            async with refused(code, param):
                await client.images.edit(model="sd-one", prompt="x", **named)
            async with refused("invalid_value", "output_compression"):  # without a look at files
                await client.images.edit(model="sd-one", prompt="x", output_compression=50, **named)

    assert not server.drawings


async def test_an_image_too_narrow_for_the_limit_of_pixels_needs_a_size(tmp_path):
    server, narrow = FakeImageServer(), ("a.png", image_file("red", (4, 20_000)))
    async with drawn_by(tmp_path, server, drawn_pixels_limit=1_000_000) as client:
        async with refused("invalid_value", "image"):
            await client.images.edit(model="sd-one", prompt="x", image=narrow)
        await client.images.edit(model="sd-one", prompt="x", image=narrow, size="64x512")

    ((_, fields),) = server.drawings
    assert (fields["width"], fields["height"]) == (64, 512)


async def test_a_form_with_several_images_or_without_one_is_refused(tmp_path):
    image = image_file("red", (64, 64))
    async with drawn_by(tmp_path, FakeImageServer()) as client:
        async with refused("unsupported_parameter", "image"):
            await client.images.edit(
                model="sd-one", prompt="x", image=[("a.png", image), ("b.png", image)]
            )
        async with refused("missing_required_parameter", "image"):
            await client.post(
                "/images/edits",
                body={"model": "sd-one", "prompt": "x"},
                files={"mask": ("m.png", image)},
                options={"headers": {"content-type": "multipart/form-data"}},
                cast_to=httpx.Response,
            )


def _first(answer: tuple[int, Any], _: Answer) -> tuple[int, Any]:
    return answer


FAILURES: list[tuple[Any, ...]] = [
    (422, {"detail": [{"loc": ["body", "steps"], "msg": "too many"}]}, 400, "too many"),
    (404, {"detail": "Not Found"}, 404, "Not Found"),
    (500, {"error": "OutOfMemoryError", "detail": ""}, 502, ""),
    (200, {"images": []}, 502, "without an image"),
    (200, {"images": ["!"]}, 502, "base64"),
    (200, {"images": [base64.b64encode(b"no image").decode()]}, 502, "invalid"),
    (200, [], 502, "not an object"),
]


async def test_failures_of_the_image_server_are_documented_errors(tmp_path):
    server = FakeImageServer()
    async with drawn_by(tmp_path, server) as client:
        for *answer, status, message in FAILURES:
            server.answer = partial(_first, tuple(answer))
            with pytest.raises(openai.APIStatusError) as caught:
                await client.images.generate(model="sd-one", prompt="x")
            assert caught.value.status_code == status
            assert message in caught.value.message


async def test_models_of_image_servers_are_listed_and_only_draw(tmp_path):
    server = FakeImageServer()
    async with drawn_by(tmp_path, server, aliases=("gpt-image-1=sd-two",)) as client:
        names = [model.id async for model in client.models.list()]
        one = await client.models.retrieve("sd-one")
        ready = await client.get("../readyz", cast_to=httpx.Response)
        await client.images.generate(model="gpt-image-1", prompt="x")
        async with refused("model_not_found", "model", 404):
            await client.images.generate(model="sd-three", prompt="x")
        async with refused("model_not_found", "model", 404):
            await client.images.generate(model="other", prompt="x")
        async with refused("invalid_value", "model"):
            await client.chat.completions.create(
                model="sd-one", messages=[{"role": "user", "content": "Hi"}]
            )
        async with refused("insufficient_permissions", "model", 403):
            await client.models.delete("sd-one")

    assert names == ["gpt-image-1", "sd-one", "sd-two"]
    assert one.id == "sd-one"
    assert ready.status_code == 200
    assert server.drawings[0][1]["override_settings"]["sd_model_checkpoint"] == "sd-two.safetensors"


async def test_a_request_without_a_model_is_drawn_by_the_one_that_is_loaded(tmp_path):
    server = FakeImageServer(loaded="sd-two.safetensors")
    options = {"sd-two": {"steps": {"low": 1, "medium": 3, "high": 5}}}
    async with drawn_by(tmp_path, server, image_models=options) as client:
        await client.images.generate(prompt="x")
        for loaded in (None, "other.safetensors"):  # which `models` does not name
            server.loaded = loaded
            async with refused("missing_required_parameter", "model"):
                await client.images.generate(prompt="x")

    ((_, fields),) = server.drawings
    assert fields["override_settings"]["sd_model_checkpoint"] == "sd-two.safetensors"
    assert fields["steps"] == 3


async def test_other_models_and_operations_are_relayed_to_the_upstream_beside_it(tmp_path):
    answer = b'HTTP/1.1 200 OK\r\ncontent-length: 13\r\n\r\n{"created":1}'
    async with FakeImageServer() as server, FakeUpstream(answer=answer) as far:
        backends = [server.backend(), backend(far, "far")]
        allowed = {"allowed_hosts": ("127.0.0.1",)}
        async with gateway(tmp_path, backends=backends, **allowed) as served:
            base_url = f"http://127.0.0.1:{served.port}/v1"
            async with StrictAsyncOpenAI(base_url=base_url, api_key="none") as client:
                await client.images.generate(model="sd-one", prompt="x")
                await client.images.generate(model="gpt-image-1", prompt="x")
                await client.images.generate(prompt="x")
                image = ("a.png", image_file("red", (64, 64)))
                await client.images.edit(model="gpt-image-1", image=image, prompt="x")

    assert len(server.drawings) == 1
    assert [json.loads(one.body).get("model") for one in far.requests[:2]] == ["gpt-image-1", None]
    assert b'name="image"; filename="a.png"' in far.requests[2].body


async def test_images_have_the_prices_of_the_settings(tmp_path):
    prices = {"sd-one": {"image": 0.25}}
    async with drawn_by(tmp_path, FakeImageServer(), prices=prices) as client:
        await client.images.generate(model="sd-one", prompt="x", n=3)
        await client.images.generate(model="sd-one.safetensors [0123abcd]", prompt="x")
        await client.images.generate(prompt="x")
        costs = await client.get(
            f"/organization/costs?start_time={yesterday()}&group_by=line_item",
            cast_to=httpx.Response,
        )

    assert [one for bucket in costs.json()["data"] for one in bucket["results"]] == [
        {
            "object": "organization.costs.result",
            "amount": {"value": 1.25, "currency": "usd"},
            "line_item": "sd-one, images",
            "quantity": 5,
            "quantity_unit": "images",
        }
    ]


async def test_a_server_that_is_down_is_a_502(tmp_path):
    server = FakeImageServer()
    async with drawn_by(tmp_path, server) as client:
        await server.fake.__aexit__()
        async with refused("upstream_failed", None, 502):
            await client.images.generate(model="sd-one", prompt="x")


@pytest.mark.parametrize("headers", [{}, {"Idempotency-Key": "k"}])
async def test_request_for_an_image_falls_back_from_a_server_that_is_down(tmp_path, headers):
    answer = b'{"created":1,"data":[{"b64_json":"aGk="}]}'
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
    async with FakeUpstream(answer=head % len(answer) + answer) as far:
        with closed_port() as port:
            url = f"http://127.0.0.1:{port}"
            down = {"name": "sd", "base_url": url, "kind": "sdapi", "models": ["sd-*"]}
            settings: Answer = {
                "backends": [down, backend(far, "far", "one")],
                "routes": {"art": "sd-one, one"},
            }
            async with gateway(tmp_path, allowed_hosts=("127.0.0.1",), **settings) as served:
                base_url = f"http://127.0.0.1:{served.port}/v1"
                async with StrictAsyncOpenAI(
                    base_url=base_url, api_key="none", max_retries=0
                ) as client:
                    drawn = await client.images.generate(
                        model="art", prompt="a cat", extra_headers=headers
                    )

    assert [one.b64_json for one in drawn.data or ()] == ["aGk="]


async def test_without_any_server_of_images_the_operation_is_a_501(tmp_path):
    async with gateway(tmp_path, allowed_hosts=("127.0.0.1",)) as served:
        base_url = f"http://127.0.0.1:{served.port}/v1"
        async with (
            StrictAsyncOpenAI(base_url=base_url, api_key="none", max_retries=0) as client,
            refused("unsupported_operation", None, 501),
        ):
            await client.images.generate(model="sd-one", prompt="x")


@pytest.mark.parametrize(("tells", "progress"), [(True, 0.25), (False, None)])
async def test_the_status_has_the_progress_of_images(tmp_path, tells, progress):
    server, seen = FakeImageServer(is_held=True, share=0.25, has_progress=tells), []
    async with drawn_by(tmp_path, server) as client, httpx.AsyncClient(timeout=60) as watching:
        drawing = asyncio.create_task(client.images.generate(model="sd-one", prompt="x"))
        async with watching.stream("GET", str(client.base_url.join("/status"))) as told:
            async for line in told.aiter_lines():
                drawings = json.loads(line[6:])["drawings"] if line.startswith("data: ") else []
                seen += [one for one in drawings if one not in seen]
                if seen and seen[-1]["progress"] == progress:
                    break
        server.release.set()
        await drawing
        async with watching.stream("GET", str(client.base_url.join("/status"))) as told:
            async for line in told.aiter_lines():
                if line.startswith("data: ") and not json.loads(line[6:])["drawings"]:
                    break

    assert seen[-1] == {"model": "sd-one", "progress": progress}
