"""Files fetched for a response's input are stored with it, and read again by later turns."""

import types

import orjson
import pytest

from llm_backend.backends.web_files import WebFile, WebFiles
from llm_backend.controllers.response_items.input_parts import FetchedFiles, check_file_count
from llm_backend.controllers.response_items.items import public_form, stored_form
from llm_backend.controllers.responses.compact import _compact
from llm_backend.controllers.services.file_texts import FILE_WORDS, FileTexts
from llm_backend.controllers.services.input_images import InputImages
from llm_backend.errors import InvalidRequest
from tests.controllers.responses.scripted import Model, forever, saying
from tests.controllers.responses.turns import Memory, services, turn
from tests.upstream import FakeUpstream

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\nconnection: close\r\n\r\n"


class Extractor:
    """Reads bytes as text."""

    async def extract(self, pieces, *, filename, media_type):
        text = b"".join([piece async for piece in pieces]).decode()
        return types.SimpleNamespace(text=text)


def web(host):
    return WebFiles(
        [f"localhost:{host.port}"], messages=FILE_WORDS, limit_bytes=1000, timeout_s=5,
        is_allowed=lambda address: True,
    )  # fmt: skip


def file_at(host):
    return {"type": "input_file", "file_url": f"http://localhost:{host.port}/owl.txt"}


def image_at(host):
    return {"type": "input_image", "image_url": f"http://localhost:{host.port}/owl.png"}


def asking(part):
    return [{"role": "user", "content": [{"type": "input_text", "text": "What?"}, part]}]


def urls(content):
    """Texts, and of images what they hold."""
    return content if isinstance(content, str) else [getattr(one, "url", one) for one in content]


def reading(host, memory, model, **set_to):
    return services(
        model, memory, file_texts=FileTexts(None, Extractor(), web(host)),
        input_images=InputImages(None, web(host), limit_bytes=1000),
        **{"fetched_kept_bytes": 100, **set_to},
    )  # fmt: skip


@pytest.mark.parametrize("part", [file_at, image_at])
async def test_a_later_turn_reads_what_an_earlier_one_fetched(part):
    async with FakeUpstream(answer=HEAD + b"The word is owl.") as host:
        memory, model = Memory(), Model(saying(), saying())
        model.accepts_images = True
        given = reading(host, memory, model)
        await (await turn(given, model, input=asking(part(host)))).response()
        await (await turn(given, model, input="And now?")).response()

    first, again = (chat.messages[0]["content"] for chat in model.asked)
    assert urls(first) == urls(again)
    assert len(host.requests) == 1


async def test_files_too_large_to_store_are_fetched_again():
    async with FakeUpstream(answer=HEAD + b"The word is owl.") as host:
        memory, model = Memory(), Model(saying(), saying())
        given = reading(host, memory, model, fetched_kept_bytes=5)
        await (await turn(given, model, input=asking(file_at(host)))).response()
        await (await turn(given, model, input="And now?")).response()

    assert len(host.requests) == 2


async def test_no_image_is_fetched_for_a_model_that_does_not_see():
    async with FakeUpstream(answer=HEAD + b"owl") as host:
        memory, model = Memory(), Model(saying())
        await turn(reading(host, memory, model), model, input=asking(image_at(host)))

    assert host.requests == []


async def test_stored_bytes_of_fetched_files_are_bounded():
    fetched = FetchedFiles(limit_bytes=5)
    for place, content in enumerate([b"123", b"456", b"78"]):
        file = WebFile(name="a", media_type="text/plain", content=content)
        await fetched.add(f"input[0].content[{place}]", file)
    (item,) = fetched.add_to([{"content": [{"type": "input_file"}] * 3}], "input")

    assert ["fetched" in part for part in item["content"]] == [True, False, True]
    assert not fetched.has_room


@pytest.mark.parametrize("name", ["content", "output"])
def test_clients_neither_see_nor_set_fetched_content(name):
    part = {"type": "input_file", "file_url": "http://a/b", "fetched": {"data": "YQ=="}}
    given = {"type": "function_call_output", "call_id": "c", name: [part]}

    for item in (public_form(given), stored_form(given)):
        assert item[name] == [{"type": "input_file", "file_url": "http://a/b"}]


async def test_a_conversation_made_short_by_hand_does_not_show_it_either():
    async with FakeUpstream(answer=HEAD + b"The word is owl.") as host:
        memory, model = Memory(), Model(saying(), saying("Owls."))
        given = reading(host, memory, model)
        await (await turn(given, model, input=asking(file_at(host)))).response()
        http = types.SimpleNamespace(receive=lambda: forever(0))
        request = types.SimpleNamespace(body={"model": "m"}, http=http)

        answer = await _compact(given, request, model)

    shown, _ = orjson.loads(answer.body)["output"]
    assert set(shown["content"][1]) == {"type", "file_url"}


async def test_too_many_files_are_refused_by_path():
    parts = [{"type": "input_file", "file_data": "YQ=="}, {"type": "input_text", "text": "a"}]
    given = services(Model(), Memory(), input_files_limit=2)
    with pytest.raises(InvalidRequest, match="the 2 that") as refused:
        await turn(given, Model(), input=[{"role": "user", "content": parts}] * 3)

    assert refused.value.param == "input[2].content[0]"


def test_files_in_outputs_of_calls_count_too():
    image = {"type": "input_image", "image_url": "data:,"}
    items = [{"type": "function_call_output", "output": [image, image]}]
    with pytest.raises(InvalidRequest) as refused:
        check_file_count(items, "input", 1)

    assert refused.value.param == "input[0].output[1]"
