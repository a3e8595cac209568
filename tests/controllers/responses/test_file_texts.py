"""Texts of files in the input: each read once, and forgotten when there are too many."""

import asyncio
import base64
import types

from llm_backend.controllers.responses import file_texts
from llm_backend.controllers.responses.file_texts import FileTexts
from llm_backend.errors import InvalidRequest
from llm_backend.extraction import UnreadableFile


class Extractor:
    """Takes its time, and counts what it was asked; cannot read a file named `bad`."""

    def __init__(self) -> None:
        self.asked = []

    async def extract(self, pieces, *, filename, media_type):
        self.asked.append(filename)
        text = b"".join([piece async for piece in pieces]).decode()
        await asyncio.sleep(0.01)
        if filename == "bad":
            raise UnreadableFile("It is broken.")
        return types.SimpleNamespace(text=text)


def item_of(text, filename="a"):
    data = base64.b64encode(text.encode()).decode()
    return {"content": [{"type": "input_file", "filename": filename, "file_data": data}]}


async def test_a_file_that_many_ask_for_at_once_is_read_once_and_kept():
    extractor = Extractor()
    texts = FileTexts(None, extractor)
    large = item_of("x" * (file_texts.KEPT_CHARACTERS // 3))
    await asyncio.gather(*(texts.read([large]) for _ in range(8)))
    for other in "bc":
        await texts.read([item_of(other, other)])
    await texts.read([large])

    assert extractor.asked == ["a", "b", "c"]


async def test_what_was_asked_for_last_is_kept():
    extractor = Extractor()
    texts = FileTexts(None, extractor)
    for filename in "abcac":
        third = item_of(filename + "x" * (file_texts.KEPT_CHARACTERS // 3), filename)
        await texts.read([third])

    assert extractor.asked == ["a", "b", "c", "a"]


async def test_each_is_told_that_a_file_cannot_be_read():
    texts = FileTexts(None, Extractor())
    asking = [texts.read([item_of("x", "bad")]) for _ in range(2)]
    told = await asyncio.gather(*asking, return_exceptions=True)

    assert [type(one) for one in told] == [InvalidRequest] * 2
