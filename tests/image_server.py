"""A fake image server that speaks `/sdapi/v1`: it paints real images in one colour."""

import asyncio
import base64
import io
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from threading import Thread
from typing import Any, Self

from PIL import Image

from tests.upstream import Connection, FakeUpstream, Message

Fields = dict[str, Any]


@dataclass(kw_only=True)
class FakeImageServer:
    """Answers as web UIs do. With `is_held`, a drawing takes until `release` is set, or until it is
    interrupted; meanwhile `share` and the colour of `preview` are its progress. An interruption
    is answered when `may_answer_interrupts` is set, if there is one; so is a progress request with
    `may_answer_progress`."""

    per_request: int | None = None
    has_progress: bool = True
    is_held: bool = False
    answer: Callable[[Fields], tuple[int, Any]] | None = None
    share: float = 0.9
    preview: str | None = "blue"
    preview_file: bytes | None = None  # sent in place of a painted preview
    drawings: list[tuple[str, Fields]] = field(default_factory=list)
    loaded: str | None = "sd-one.safetensors"  # without the hash of its title
    interrupted: int = 0
    release: asyncio.Event = field(default_factory=asyncio.Event)
    may_answer_interrupts: asyncio.Event | None = None
    may_answer_progress: asyncio.Event | None = None

    async def __aenter__(self) -> Self:
        self.fake = FakeUpstream(answer=self._answer)
        await self.fake.__aenter__()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.fake.__aexit__(*error)

    @property
    def requests(self) -> list[Message]:
        return self.fake.requests

    def backend(self, **more: Any) -> Fields:
        """An entry of the setting `backends`."""
        address = f"http://127.0.0.1:{self.fake.port}"
        named = {"name": "painter", "kind": "sdapi", "models": ("sd*",)}
        return {**named, "base_url": address, **more}

    async def _answer(self, request: Message, connection: Connection) -> None:
        method, target, _ = request.first_line.decode().split()
        path = target.partition("?")[0].removeprefix("/sdapi/v1/")
        status, answer = await self._route(method, path, request.body)
        body = json.dumps(answer).encode()
        head = f"HTTP/1.1 {status} X\r\ncontent-type: application/json\r\n"
        await connection.send(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)

    async def _route(self, method: str, path: str, body: bytes) -> tuple[int, Any]:
        if path == "sd-models":
            return 200, [
                {"title": "sd-one.safetensors [0123abcd]", "model_name": "sd-one"},
                {"title": "sd-two.safetensors", "model_name": "sd-two"},
                {"title": "other.safetensors", "model_name": "other"},
            ]
        if path == "options":
            return 200, {"sd_model_checkpoint": self.loaded}
        if path == "progress" and self.has_progress:
            if self.may_answer_progress is not None:
                await self.may_answer_progress.wait()
            current = None if self.preview is None else painted(self.preview, (64, 64))
            if self.preview_file is not None:
                current = base64.b64encode(self.preview_file).decode()
            return 200, {"progress": self.share, "current_image": current}
        if path == "interrupt" and method == "POST":
            self.interrupted += 1
            self.release.set()
            if self.may_answer_interrupts is not None:
                await self.may_answer_interrupts.wait()
            return 200, {}
        if path not in ("txt2img", "img2img"):
            return 404, {"detail": "Not Found"}
        return await self._draw(path, json.loads(body))

    async def _draw(self, path: str, fields: Fields) -> tuple[int, Any]:
        self.drawings.append((path, fields))
        if self.is_held:
            await self.release.wait()
        if self.answer is not None:
            return self.answer(fields)
        size = fields.get("width", 512), fields.get("height", 512)
        count = min(fields["n_iter"], self.per_request or fields["n_iter"])
        return 200, {"images": [painted("red", size)] * count, "info": "{}"}


@contextmanager
def running(server: FakeImageServer) -> Iterator[Callable[[], None]]:
    """Runs an image server beside a test without an event loop; yields what releases its
    drawings."""
    loop = asyncio.new_event_loop()
    thread = Thread(target=loop.run_forever)
    thread.start()
    try:
        asyncio.run_coroutine_threadsafe(server.__aenter__(), loop).result()
        yield partial(loop.call_soon_threadsafe, server.release.set)
    finally:
        asyncio.run_coroutine_threadsafe(server.__aexit__(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def painted(colour: str, size: tuple[int, int], *, format: str = "PNG", mode: str = "RGB") -> str:
    """An image in one colour, in base64."""
    return base64.b64encode(image_file(colour, size, format=format, mode=mode)).decode()


def image_file(
    colour: Any, size: tuple[int, int], *, format: str = "PNG", mode: str = "RGB"
) -> bytes:
    """The file of an image in one colour."""
    file = io.BytesIO()
    Image.new(mode, size, colour).save(file, format)
    return file.getvalue()


def decoded(file: str | bytes) -> Image.Image:
    """The image in a file, or in base64."""
    data = base64.b64decode(file) if isinstance(file, str) else file
    image = Image.open(io.BytesIO(data))
    image.load()
    return image
