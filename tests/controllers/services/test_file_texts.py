"""Texts of files in the input: each read once, and forgotten when there are too many."""

import asyncio
import base64
import types

import pytest

from llm_backend.backends.web_files import WebFiles
from llm_backend.controllers.services import file_texts
from llm_backend.controllers.services.file_texts import FILE_WORDS, FileTexts
from llm_backend.errors import InvalidRequest, ServiceUnavailable
from llm_backend.extraction import ExtractionLimits, ReaderKilled, UnreadableFile
from llm_backend.extraction import Extractor as RealExtractor
from tests.upstream import FakeUpstream

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/html; charset=utf-8\r\nconnection: close\r\n\r\n"
MOVED = b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1/\r\ncontent-length: 0\r\n\r\n"


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


def web(*hosts, is_public=True):
    return WebFiles(
        hosts,
        messages=FILE_WORDS,
        limit_bytes=1000,
        timeout_s=5,
        is_allowed=lambda address: is_public,
    )


def url_item(url, **more):
    return {"content": [{"type": "input_file", "file_url": url, **more}]}


def item_of(text, filename="a"):
    data = base64.b64encode(text.encode()).decode()
    return {"content": [{"type": "input_file", "filename": filename, "file_data": data}]}


async def test_text_larger_than_the_cache_evicts_no_other(monkeypatch):
    monkeypatch.setattr(file_texts, "CACHE_CHARACTERS", 100)
    extractor = Extractor()
    texts = FileTexts(None, extractor, web())
    small, large = item_of("x" * 60, "small"), item_of("y" * 101, "large")
    for item in (small, large, small):
        await texts.read([item])

    assert extractor.asked == ["small", "large"]


async def test_concurrent_requests_for_a_file_share_one_extraction():
    extractor = Extractor()
    texts = FileTexts(None, extractor, web())
    large = item_of("x" * (file_texts.CACHE_CHARACTERS // 3))
    await asyncio.gather(*(texts.read([large]) for _ in range(8)))
    for other in "bc":
        await texts.read([item_of(other, other)])
    await texts.read([large])

    assert extractor.asked == ["a", "b", "c"]


async def test_the_text_cache_evicts_the_least_recently_used():
    extractor = Extractor()
    texts = FileTexts(None, extractor, web())
    for filename in "abcac":
        third = item_of(filename + "x" * (file_texts.CACHE_CHARACTERS // 3), filename)
        await texts.read([third])

    assert extractor.asked == ["a", "b", "c", "a"]


async def test_each_concurrent_request_gets_the_extraction_error():
    texts = FileTexts(None, Extractor(), web())
    asking = [texts.read([item_of("x", "bad")]) for _ in range(2)]
    told = await asyncio.gather(*asking, return_exceptions=True)

    assert [type(one) for one in told] == [InvalidRequest] * 2


async def test_a_file_is_fetched_from_a_host_that_is_allowed():
    async with FakeUpstream(answer=HEAD + b"<p>The word is <b>owl</b>.</p>") as host:
        name = f"localhost:{host.port}"
        texts = FileTexts(None, RealExtractor(ExtractionLimits()), web(name))

        (item,) = await texts.read([url_item(f"http://{name}/a/word%20list?page=1")], "input")

    assert host.requests[0].first_line == b"GET /a/word%20list?page=1 HTTP/1.1"
    assert item["content"] == [
        {"type": "input_text", "text": "[File word list]\nThe word is **owl**.\n"}
    ]


async def test_a_fetched_file_has_the_name_that_the_client_gives_it():
    async with FakeUpstream(answer=HEAD + b"owl") as host:
        name = f"localhost:{host.port}"
        extractor = Extractor()

        await FileTexts(None, extractor, web(name)).read(
            [url_item(f"http://{name}/", filename="b")]
        )

    assert extractor.asked == ["b"]


@pytest.mark.parametrize(
    ("answer", "allowed", "is_public", "why"),
    [
        (HEAD, "example.org", True, "`file_data`, .* `file_hosts` .LLM_BACKEND_FILE_HOSTS"),
        (HEAD, "{host}", False, "file cannot be fetched"),
        (MOVED, "{host}", True, "file's host answers with 302"),
        (HEAD + bytes(1001), "{host}", True, "file has more than 1,000 bytes"),
    ],
)
async def test_a_file_that_is_not_fetched_is_named(answer, allowed, is_public, why):
    async with FakeUpstream(answer=answer) as host:
        name = f"localhost:{host.port}"
        fetching = web(allowed.format(host=name), is_public=is_public)

        with pytest.raises(InvalidRequest, match=why) as refused:
            await FileTexts(None, Extractor(), fetching).read(
                [url_item(f"http://{name}/")], "input"
            )

    assert refused.value.param == "input[0].content[0].file_url"


async def test_no_url_of_the_web_is_no_file():
    with pytest.raises(InvalidRequest, match="not a URL"):
        await FileTexts(None, Extractor(), web()).read([url_item("file:///etc/hostname")], "input")


async def test_the_same_bytes_are_read_again_as_another_type():
    extractor = Extractor()
    texts = FileTexts(None, extractor, web())
    for media_type in ("text/plain", "text/html"):
        data = f"data:{media_type};base64,YQ=="
        await texts.read([{"content": [{"type": "input_file", "file_data": data}]}])

    assert extractor.asked == ["", ""]


async def test_a_reader_that_was_killed_is_no_mistake_of_the_client():
    class Killed:
        async def extract(self, pieces, *, filename, media_type):
            raise ReaderKilled("The process that read the file was killed; try again.")

    part = {"type": "input_file", "filename": "a.pdf", "file_data": "YQ=="}
    with pytest.raises(ServiceUnavailable, match=r"a\.pdf") as caught:
        await FileTexts(None, Killed(), web()).read_part(part, "input[0]")

    assert caught.value.retry_after_s
