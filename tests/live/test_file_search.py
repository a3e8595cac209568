"""The tool `file_search` of responses, driven by the official client."""

import json
import time
from collections.abc import Iterator

import httpx
import openai
import pytest

from tests.response_events import check_events
from tests.serving import Served, serve
from tests.strict_sdk import StrictOpenAI

MODEL = "builtin"
TEXT = "The garden gate opens with the code 4711."


@pytest.fixture(scope="module")
def searching(library_server: Served) -> Iterator[openai.OpenAI]:
    with StrictOpenAI(base_url=library_server.base_url, api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def garden(searching: openai.OpenAI) -> str:
    return store_of(searching, "garden.txt", TEXT)


def store_of(client: openai.OpenAI, name: str, text: str) -> str:
    file = client.files.create(file=(name, text.encode()), purpose="assistants")
    store = client.vector_stores.create(file_ids=[file.id])
    while client.vector_stores.retrieve(store.id).status != "completed":
        time.sleep(0.05)
    return store.id


def tool(*store_ids: str, **more: object) -> dict:
    return {"type": "file_search", "vector_store_ids": list(store_ids), **more}


def test_a_file_search_has_items_and_citations(searching, garden):
    events = list(
        searching.responses.create(
            model=MODEL,
            input="What is the code of the garden gate?",
            tools=[tool(garden)],
            include=["file_search_call.results"],
            max_output_tokens=60,
            stream=True,
        )
    )

    kinds = [event.type for event in events if "file_search" in event.type]
    assert kinds == [
        f"response.file_search_call.{stage}" for stage in ("in_progress", "searching", "completed")
    ]
    check_events([event.to_dict(warnings=False) for event in events])
    response = events[-1].response
    call, message = response.output
    assert call.status == "completed"
    assert call.queries == ["What is the code of the garden gate?"]
    assert [result.text for result in call.results] == [TEXT]
    (annotation,) = message.content[0].annotations
    assert (annotation.type, annotation.filename) == ("file_citation", "garden.txt")
    assert "response.output_text.annotation.added" in {event.type for event in events}


def test_a_model_can_be_made_to_search(searching, garden):
    response = searching.responses.create(
        model=MODEL, input="What grows in the garden?",
        tools=[tool(garden)], tool_choice={"type": "file_search"}, max_tool_calls=1,
        max_output_tokens=400, temperature=0,
    )  # fmt: skip

    assert response.output[0].type == "file_search_call"


def test_search_results_are_returned_if_included(searching, garden):
    response = searching.responses.create(
        model=MODEL, input="What is the code?", tools=[tool(garden)], max_output_tokens=60
    )

    assert response.output[0].results is None
    again = searching.responses.retrieve(response.id, include=["file_search_call.results"])
    assert again.output[0].results[0].text == TEXT


def test_each_reader_of_a_stream_chooses_what_it_includes(searching, garden):
    results = "file_search_call.results"
    asked = {"model": MODEL, "input": "What is the code?", "tools": [tool(garden)]}
    with searching.responses.create(
        **asked, max_output_tokens=16, background=True, stream=True
    ) as stream:
        address = f"{searching.base_url}responses/{next(iter(stream)).response.id}"

    told = []
    for include in ([], [results]):
        params = {"stream": "true", "include[]": include}
        with httpx.stream("GET", address, params=params, timeout=60) as stream:
            lines = [line.removeprefix("data: ") for line in stream.iter_lines()]
        events = [json.loads(line) for line in lines if line.startswith("{")]
        call = next(one["item"] for one in events if one["type"] == "response.output_item.done")
        told.append([call["results"], events[-1]["response"]["output"][0]["results"]])

    without, (in_item, in_response) = told
    assert without == [None, None]
    assert in_item == in_response
    assert [one["text"] for one in in_item] == [TEXT]


def test_a_store_that_is_not_there_is_named(searching):
    with pytest.raises(openai.NotFoundError, match="vs_none") as refused:
        searching.responses.create(model=MODEL, input="Hello", tools=[tool("vs_none")])

    assert refused.value.param == "tools[0].vector_store_ids"


def test_a_filter_that_makes_no_sense_is_named(searching, garden):
    filters = {"type": "lt", "key": "a", "value": "b"}

    with pytest.raises(openai.BadRequestError) as refused:
        searching.responses.create(
            model=MODEL, input="Hello", tools=[tool(garden, filters=filters)]
        )

    assert refused.value.param == "tools[0].filters.value"


QUESTION = [{"role": "user", "content": "What is the code of the garden gate?"}]


def test_a_chat_gets_passages_and_reports_them(searching, garden):
    answer = searching.chat.completions.create(
        model=MODEL, messages=QUESTION, max_tokens=20, tools=[tool(garden)], seed=1
    )

    without = searching.chat.completions.create(
        model=MODEL, messages=QUESTION, max_tokens=20, seed=1
    )
    told = answer.model_extra["retrieval"]
    assert told["status"] == "found"
    assert told["query"] == QUESTION[0]["content"]
    assert [result["text"] for result in told["results"]] == [TEXT]
    (annotation,) = answer.choices[0].message.annotations
    assert (annotation.type, annotation.filename) == ("file_citation", "garden.txt")
    assert answer.usage.prompt_tokens > without.usage.prompt_tokens + 10
    assert searching.chat.completions.retrieve(answer.id).model_extra["retrieval"] == told


def test_a_streamed_chat_reports_passages_first(searching, garden):
    chunks = list(
        searching.chat.completions.create(
            model=MODEL, messages=QUESTION, max_tokens=20, tools=[tool(garden)], stream=True
        )
    )

    assert chunks[0].model_extra["retrieval"]["status"] == "found"
    assert chunks[0].choices[0].delta.model_extra["annotations"][0]["filename"] == "garden.txt"
    assert not any("retrieval" in chunk.model_extra for chunk in chunks[1:])


def test_a_chat_reports_an_empty_search(searching, garden):
    answer = searching.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": "Zebra"}],
        max_tokens=20,
        tools=[tool(garden)],
    )

    assert answer.model_extra["retrieval"]["status"] == "nothing_found"
    assert not answer.choices[0].message.annotations


def test_a_chat_with_a_store_that_is_not_there_is_refused(searching):
    with pytest.raises(openai.NotFoundError) as refused:
        searching.chat.completions.create(model=MODEL, messages=QUESTION, tools=[tool("vs_none")])

    assert refused.value.param == "tools[0].vector_store_ids"


def test_a_failed_search_in_model_stores_is_reported(tmp_path):
    config = tmp_path / "config.yaml"
    config.write_text("models:\n- {path: builtin, vector_stores: [vs_none]}\n")
    with (
        serve(tmp_path, "--config", str(config)) as served,
        StrictOpenAI(base_url=served.base_url, api_key="none", max_retries=0) as client,
    ):
        chat = client.chat.completions.create(model=MODEL, messages=QUESTION, max_tokens=20)
        response = client.responses.create(model=MODEL, input=QUESTION, max_output_tokens=20)
        kept = client.responses.retrieve(response.id)

    for answer in (chat, response, kept):
        assert answer.model_extra["retrieval"]["status"] == "failed"
        assert "vs_none" in answer.model_extra["retrieval"]["error"]
