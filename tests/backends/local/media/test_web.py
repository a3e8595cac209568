import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_backend.backends.local.media import Image, MediaBounds, MediaReader
from llm_backend.backends.local.media.web import IMAGE_WORDS, WebImages
from llm_backend.backends.web_files import WebFiles
from llm_backend.errors import InvalidRequest
from tests.media_files import image
from tests.upstream import Connection, FakeUpstream, Message

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: image/png\r\nconnection: close\r\n\r\n"
MOVED = b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1/\r\ncontent-length: 0\r\n\r\n"


def image_at(url: str) -> Image:
    return Image(url=url, param="here")


def web(*hosts: str, is_public: bool = True, **more: float) -> WebImages:
    more = {"limit_bytes": 10_000, "timeout_s": 5, **more}
    files = WebFiles(hosts, messages=IMAGE_WORDS, is_allowed=lambda address: is_public, **more)
    return WebImages(files)


async def test_image_is_fetched_from_an_allowed_host():
    async with FakeUpstream(answer=HEAD + image(1)) as host:
        name = f"localhost:{host.port}"
        reader = MediaReader(MediaBounds(), web=web(name))

        (media,) = await reader.decode([(3, image_at(f"http://{name}/cat.png"))])

    assert (media.at, media.width, media.height) == (3, 40, 30)
    assert host.requests[0].first_line == b"GET /cat.png HTTP/1.1"


@pytest.mark.parametrize(
    "url",
    [
        "http://{other}/cat.png",
        "http://{host}@{other}/",
        "http://{other}#@{host}/",
        "http://{other}\\@{host}/",
        "http://localhost/",
        "HTTPS://example.org",
        "http://",
        "http://localhost:99999/",
        "http://{host}/" + "a" * 5000,
    ],
)
async def test_other_hosts_get_no_request(url):
    async with FakeUpstream(answer=HEAD) as host, FakeUpstream(answer=HEAD) as other:
        names = {"host": f"localhost:{host.port}", "other": f"localhost:{other.port}"}

        with pytest.raises(InvalidRequest) as refused:
            await web(names["host"]).fetch(image_at(url.format(**names)))

    assert other.requests == []
    assert (refused.value.param, refused.value.code) == ("here", "invalid_image_url")


@pytest.mark.parametrize(
    ("name", "why"), [("localhost", "cannot be fetched"), ("127.0.0.1", "private addresses")]
)
async def test_name_of_an_internal_address_is_refused(name, why):
    async with FakeUpstream(answer=HEAD + image(1)) as host:
        allowed = f"{name}:{host.port}"
        files = WebFiles([allowed], messages=IMAGE_WORDS, limit_bytes=10_000, timeout_s=5)
        inside = WebImages(files)

        with pytest.raises(InvalidRequest, match=why):
            await inside.fetch(image_at(f"http://{allowed}/cat.png"))

    assert host.requests == []


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (MOVED, "answers with 302"),
        (b"HTTP/1.1 404 X\r\ncontent-length: 0\r\n\r\n", "answers with 404"),
        (HEAD + bytes(10_001), "more than 10,000 bytes"),
        (b"no HTTP\r\n\r\n", "cannot be fetched"),
    ],
)
async def test_answer_without_an_image_is_refused(answer, why):
    async with FakeUpstream(answer=answer) as host:
        name = f"localhost:{host.port}"

        with pytest.raises(InvalidRequest, match=why):
            await web(name).fetch(image_at(f"http://{name}/"))

    assert len(host.requests) == 1


async def test_silent_host_times_out():
    async def silent(_request: Message, _connection: Connection) -> None:
        await asyncio.sleep(60)

    async with FakeUpstream(answer=silent) as host:
        name = f"localhost:{host.port}"

        with pytest.raises(InvalidRequest, match=r"did not arrive within 0\.2 s"):
            await web(name, timeout_s=0.2).fetch(image_at(f"http://{name}/"))


async def test_data_url_is_not_fetched():
    held = image_at("data:image/png;base64,AA==")

    assert await web().fetch(held) is held


@given(st.text(max_size=40), st.sampled_from(["http://", "HTTPS://", "data:", "data:;base64,", ""]))
def test_any_invalid_image_is_refused_by_its_param(text, begin):
    reader = MediaReader()

    with pytest.raises(InvalidRequest) as refused:
        asyncio.run(reader.decode([(0, image_at(begin + text))]))

    assert refused.value.param == "here"
