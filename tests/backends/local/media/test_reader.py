"""The media reader decodes two images at once, whatever becomes of their requests."""

import asyncio
import threading

from llm_backend.backends.local.media import Image, MediaReader, images
from llm_backend.engine.messages import Pixels
from tests.image_server import painted
from tests.patience import comes_true


async def test_an_image_of_a_cancelled_request_counts_until_it_is_decoded(monkeypatch):
    decode, release = images.decode_image, threading.Event()
    decoding, most = 0, 0

    def wait(data: bytes, *, detail: str, limit: int) -> Pixels:
        nonlocal decoding, most
        decoding += 1
        most = max(most, decoding)
        release.wait(60)
        decoding -= 1
        return decode(data, detail=detail, limit=limit)

    def ask(width: int) -> "asyncio.Task[object]":
        url = f"data:image/png;base64,{painted('red', (width, 8))}"
        image = Image(url=url, param="here")
        return asyncio.create_task(reader.decode([(0, image)]))

    monkeypatch.setattr(images, "decode_image", wait)
    reader = MediaReader()
    leaving = [ask(width) for width in (8, 16)]
    assert await comes_true(lambda: decoding == 2, within_s=20)
    for task in leaving:
        task.cancel()
    await asyncio.gather(*leaving, return_exceptions=True)
    staying = [ask(width) for width in (24, 32)]
    await comes_true(lambda: decoding > 2, within_s=0.2)
    release.set()
    decoded = await asyncio.gather(*staying)

    assert most == 2
    assert [one[0].width for one in decoded] == [24, 32]
