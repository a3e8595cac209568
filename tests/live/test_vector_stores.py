"""Vector stores, driven by the official client: files go in, and are found."""

import contextlib
import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from tests.extraction.documents import docx, pdf
from tests.patience import wait_until
from tests.qdrant import qdrant_server
from tests.serving import Served, serve
from tests.strict_sdk import StrictOpenAI

FACTS = {
    "penguins.md": "# Penguins\n\nEmperor penguins breed in the Antarctic winter.\n",
    "engines.txt": "The diesel engine was invented by Rudolf Diesel. Part number XJ-7734-B.\n",
    "cooking.html": "<html><h1>Bread</h1><p>Knead the dough and let it rise for an hour.</p>",
    "people.csv": "name,job\nAda,mathematician\nGrace,admiral\n",
}

HINT = "openai-poll-after-ms"


@pytest.fixture(scope="module")
def library(library_server: Served) -> Iterator[openai.OpenAI]:
    with StrictOpenAI(base_url=library_server.base_url, api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def facts(library: openai.OpenAI) -> tuple[str, dict[str, str]]:
    """A store of `FACTS`, and the ids of its files."""
    ids = {name: upload(library, name, text.encode()) for name, text in FACTS.items()}
    store = library.vector_stores.create(name="facts")
    for number, (name, id) in enumerate(ids.items()):
        library.vector_stores.files.create(
            vector_store_id=store.id,
            file_id=id,
            attributes={"kind": name.partition(".")[2], "number": number, "odd": number % 2 == 1},
        )
    wait(library, store.id)
    return store.id, ids


def upload(client: openai.OpenAI, name: str, data: bytes, purpose: str = "assistants") -> str:
    return client.files.create(file=(name, data), purpose=purpose).id


def wait(client: openai.OpenAI, store_id: str) -> Any:
    return until(
        lambda: client.vector_stores.retrieve(store_id),
        lambda store: store.file_counts.in_progress == 0,
    )


def until(get: Callable[[], Any], is_so: Callable[[Any], bool]) -> Any:
    deadline = time.monotonic() + 180
    while not is_so(found := get()):
        assert time.monotonic() < deadline, found
        time.sleep(0.05)
    return found


def names(hits: Any) -> list[str]:
    return [hit.filename for hit in hits]


def test_a_store_counts_its_files(library, facts):
    store = library.vector_stores.retrieve(facts[0])

    assert store.status == "completed"
    assert store.file_counts.completed == store.file_counts.total == len(FACTS)
    assert store.usage_bytes > 0
    assert store.expires_at is None


@pytest.mark.parametrize(
    ("query", "file"),
    [
        ("Which birds live at the south pole?", "penguins.md"),
        ("baking", "cooking.html"),
        ("XJ-7734-B", "engines.txt"),
        ("Who is a mathematician?", "people.csv"),
    ],
)
def test_the_file_of_the_same_meaning_or_words_comes_first(library, facts, query, file):
    page = library.vector_stores.search(facts[0], query=query)

    assert names(page.data)[0] == file
    assert page.search_query == [query]
    scores = [hit.score for hit in page.data]
    assert scores == sorted(scores, reverse=True)
    assert 0 < scores[-1] <= scores[0] <= 1


def test_queries_are_rewritten_by_the_model_for_it(library, facts):
    queries = ["Which birds live at the south pole?", "baking"]
    page = library.vector_stores.search(facts[0], query=queries, rewrite_query=True)

    assert len(page.search_query) == 2
    assert all(page.search_query)
    assert page.search_query != queries


def passes(served: Served) -> str:
    """The line of the metric that counts the forward passes of the model for queries."""
    (line,) = re.findall(
        r'^llm_backend_engine_passes_total{.*"builtin".*',
        httpx.get(f"{served.address}/metrics").text,
        re.MULTILINE,
    )
    return str(line)


def test_a_refused_search_does_not_rewrite_its_queries(library, library_server):
    search = partial(library.vector_stores.search, query="baking", rewrite_query=True)
    store = library.vector_stores.create().id
    before = passes(library_server)
    with pytest.raises(openai.NotFoundError):
        search("vs_absent")
    with pytest.raises(openai.BadRequestError, match="compares numbers"):
        search(store, filters={"type": "gt", "key": "size", "value": "large"})

    assert passes(library_server) == before


def test_without_a_ranker_the_score_is_the_similarity(library, facts):
    page = library.vector_stores.search(
        facts[0],
        query="Emperor penguins breed in the Antarctic winter.",
        ranking_options={"ranker": "none", "score_threshold": 0.6},
        max_num_results=3,
    )

    assert names(page.data) == ["penguins.md"]
    assert page.data[0].score > 0.8


def test_several_queries_are_one_search(library, facts):
    page = library.vector_stores.search(
        facts[0], query=["penguins", "bread dough"], max_num_results=2
    )

    assert set(names(page.data)) == {"penguins.md", "cooking.html"}


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        ({"type": "eq", "key": "kind", "value": "md"}, {"penguins.md"}),
        ({"type": "ne", "key": "kind", "value": "md"}, set(FACTS) - {"penguins.md"}),
        ({"type": "gte", "key": "number", "value": 2}, {"cooking.html", "people.csv"}),
        ({"type": "lt", "key": "number", "value": 1}, {"penguins.md"}),
        ({"type": "eq", "key": "odd", "value": True}, {"engines.txt", "people.csv"}),
        ({"type": "in", "key": "kind", "value": ["md", "csv"]}, {"penguins.md", "people.csv"}),
        ({"type": "nin", "key": "number", "value": [0, 1, 2]}, {"people.csv"}),
        (
            {
                "type": "or",
                "filters": [
                    {"type": "eq", "key": "kind", "value": "txt"},
                    {
                        "type": "and",
                        "filters": [
                            {"type": "gt", "key": "number", "value": 1},
                            {"type": "eq", "key": "odd", "value": False},
                        ],
                    },
                ],
            },
            {"engines.txt", "cooking.html"},
        ),
    ],
)
def test_filters_narrow_a_search(library, facts, filters, found):
    page = library.vector_stores.search(facts[0], query="anything", filters=filters)

    assert set(names(page.data)) == found


def test_attributes_are_changed_and_searched_by(library, facts):
    store_id, ids = facts
    changed = library.vector_stores.files.update(
        ids["people.csv"], vector_store_id=store_id, attributes={"kind": "csv", "mark": "new"}
    )
    page = library.vector_stores.search(
        store_id, query="anything", filters={"type": "eq", "key": "mark", "value": "new"}
    )

    assert changed.attributes == {"kind": "csv", "mark": "new"}
    assert names(page.data) == ["people.csv"]
    library.vector_stores.files.update(
        ids["people.csv"],
        vector_store_id=store_id,
        attributes={"kind": "csv", "number": 3, "odd": True},
    )


def test_files_are_listed_in_pages_both_ways(library, facts):
    store_id, ids = facts
    order = list(ids.values())
    first = library.vector_stores.files.list(store_id, limit=3, order="asc")
    rest = library.vector_stores.files.list(store_id, limit=3, order="asc", after=order[2])
    before = library.vector_stores.files.list(store_id, limit=2, order="asc", before=order[3])

    assert [file.id for file in first.data] == order[:3]
    assert [file.id for file in rest.data] == order[3:]
    assert [file.id for file in before.data] == order[1:3]
    assert first.has_more
    assert not rest.has_more
    assert library.vector_stores.files.list(store_id, filter="failed").data == []


def test_stores_are_listed_in_pages(library):
    ids = [library.vector_stores.create(name=f"list {number}").id for number in range(3)]

    newest = library.vector_stores.list(limit=2)
    older = library.vector_stores.list(limit=1, after=newest.data[-1].id)
    newer = library.vector_stores.list(limit=1, before=newest.data[-1].id)

    assert [store.id for store in newest.data] == [ids[2], ids[1]]
    assert older.data[0].id == ids[0]
    assert newer.data[0].id == ids[2]


def test_the_text_of_a_file_is_shown_once(library, facts):
    store_id, ids = facts

    content = library.vector_stores.files.content(ids["penguins.md"], vector_store_id=store_id)

    assert [part.text for part in content.data] == [FACTS["penguins.md"]]


def test_a_long_file_is_chunked_by_its_strategy(library):
    text = "\n\n".join(f"Paragraph {number} tells of the number {number}." for number in range(200))
    file_id = upload(library, "long.txt", text.encode())
    store = library.vector_stores.create()

    file = library.vector_stores.files.create_and_poll(
        vector_store_id=store.id,
        file_id=file_id,
        chunking_strategy={
            "type": "static",
            "static": {"max_chunk_size_tokens": 100, "chunk_overlap_tokens": 20},
        },
        poll_interval_ms=50,
    )

    assert file.status == "completed"
    assert file.chunking_strategy.static.max_chunk_size_tokens == 100
    content = library.vector_stores.files.content(file_id, vector_store_id=store.id)
    assert content.data[0].text == text
    page = library.vector_stores.search(store.id, query="Paragraph 137", max_num_results=50)
    assert "Paragraph 137" in page.data[0].content[0].text
    assert len(page.data) > 20


def test_chunks_larger_than_the_model_reads_at_once_are_searched_too(library):
    text = "Filler words go here. " * 150 + "The secret ingredient is cardamom."
    store = library.vector_stores.create()

    file = library.vector_stores.files.create_and_poll(
        vector_store_id=store.id,
        file_id=upload(library, "large.txt", text.encode()),
        chunking_strategy={
            "type": "static",
            "static": {"max_chunk_size_tokens": 4096, "chunk_overlap_tokens": 0},
        },
        poll_interval_ms=50,
    )

    assert file.status == "completed"
    page = library.vector_stores.search(store.id, query="cardamom")
    assert [hit.content[0].text for hit in page.data] == [text]


def test_a_file_batch_ingests_readable_files_and_reports_others(library):
    good = upload(library, "a.docx", docx("The capital of France is Paris."))
    page = upload(library, "b.pdf", pdf("The capital of Peru is Lima."))
    broken = upload(library, "c.pdf", b"%PDF-1.4 but nothing more")
    image = upload(library, "d.png", b"\x89PNG\r\n\x1a\n\x00")
    store = library.vector_stores.create()

    batch = library.vector_stores.file_batches.create_and_poll(
        store.id, file_ids=[good, page, broken, image], poll_interval_ms=50
    )

    assert batch.status == "completed"
    assert (batch.file_counts.completed, batch.file_counts.failed) == (2, 2)
    failed = library.vector_stores.file_batches.list_files(
        batch.id, vector_store_id=store.id, filter="failed", order="asc"
    )
    assert [file.last_error.code for file in failed.data] == ["invalid_file", "unsupported_file"]
    assert failed.data[0].last_error.message == "The PDF is damaged."
    found = library.vector_stores.search(store.id, query="capital of Peru", max_num_results=1)
    assert names(found.data) == ["b.pdf"]


def test_a_waiting_client_gets_a_poll_interval(library):
    ids = [upload(library, f"{number}.txt", b"Some text. " * 20_000) for number in range(2)]
    store = library.vector_stores.create()
    made = library.vector_stores.file_batches.create(store.id, file_ids=ids)
    batches, files = library.vector_stores.file_batches, library.vector_stores.files
    asked = {"vector_store_id": store.id}
    looked = [
        batches.with_raw_response.retrieve(made.id, **asked),
        files.with_raw_response.retrieve(ids[1], **asked),
        library.vector_stores.with_raw_response.retrieve(store.id),
    ]
    batches.cancel(made.id, **asked)
    done = batches.with_raw_response.retrieve(made.id, **asked)

    for answer in looked:
        is_waiting = answer.parse().status == "in_progress"
        assert (HINT in answer.headers) == is_waiting
        assert not is_waiting or 200 <= int(answer.headers[HINT]) <= 5000
    assert HINT in looked[0].headers
    assert HINT not in done.headers


def test_a_file_batch_has_attributes_for_each_file(library):
    ids = [upload(library, f"{number}.txt", b"some text") for number in range(2)]
    store = library.vector_stores.create()

    library.vector_stores.file_batches.create_and_poll(
        store.id,
        files=[{"file_id": id, "attributes": {"place": place}} for place, id in enumerate(ids)],
        poll_interval_ms=50,
    )

    found = library.vector_stores.search(
        store.id, query="text", filters={"type": "eq", "key": "place", "value": 1}
    )
    assert [hit.file_id for hit in found.data] == [ids[1]]


def test_a_cancelled_batch_takes_in_no_more(library):
    text = b"Quite some text, so that this takes a moment. " * 4000
    ids = [upload(library, f"{number}.txt", text) for number in range(3)]
    store = library.vector_stores.create()
    batch = library.vector_stores.file_batches.create(store.id, file_ids=ids)

    cancelled = library.vector_stores.file_batches.cancel(batch.id, vector_store_id=store.id)

    assert cancelled.status == "cancelled"
    assert cancelled.file_counts.in_progress == 0
    assert cancelled.file_counts.cancelled > 0
    again = library.vector_stores.file_batches.retrieve(batch.id, vector_store_id=store.id)
    assert again.file_counts == cancelled.file_counts


def test_removed_and_deleted_files_are_not_found_any_more(library):
    ids = [upload(library, f"{number}.txt", f"entry {number}".encode()) for number in range(3)]
    store = library.vector_stores.create(file_ids=ids)
    wait(library, store.id)

    library.vector_stores.files.delete(ids[0], vector_store_id=store.id)
    library.files.delete(ids[1])

    assert names(library.vector_stores.search(store.id, query="entry").data) == ["2.txt"]
    assert [file.id for file in library.vector_stores.files.list(store.id).data] == [ids[2]]
    assert library.files.retrieve(ids[0]).id == ids[0]


def test_a_file_that_is_added_again_is_taken_in_anew(library):
    id = upload(library, "a.txt", b"some text")
    store = library.vector_stores.create(file_ids=[id])
    wait(library, store.id)

    library.vector_stores.files.create_and_poll(
        vector_store_id=store.id, file_id=id, attributes={"mark": 1}, poll_interval_ms=50
    )

    assert library.vector_stores.retrieve(store.id).file_counts.total == 1
    found = library.vector_stores.search(store.id, query="text").data
    assert [hit.attributes for hit in found] == [{"mark": 1}]


def test_a_store_is_changed_and_deleted(library):
    store = library.vector_stores.create(
        name="before",
        metadata={"a": "1"},
        expires_after={"anchor": "last_active_at", "days": 3},
    )
    assert store.expires_at - store.last_active_at == 3 * 86_400

    changed = library.vector_stores.update(
        store.id, name="after", metadata={"b": "2"}, expires_after=None
    )

    assert (changed.name, changed.metadata) == ("after", {"b": "2"})
    assert changed.expires_at is None
    assert library.vector_stores.delete(store.id).deleted
    with pytest.raises(openai.NotFoundError, match=store.id):
        library.vector_stores.retrieve(store.id)


def test_a_missing_store_or_file_is_a_404_with_its_name(library, facts):
    store_id, _ = facts
    calls: list[tuple[str, Callable[[], Any]]] = [
        ("vs_none", lambda: library.vector_stores.retrieve("vs_none")),
        ("vs_none", lambda: library.vector_stores.search("vs_none", query="a")),
        ("vs_none", lambda: library.vector_stores.files.list("vs_none")),
        ("file-none", lambda: library.vector_stores.create(file_ids=["file-none"])),
        ("file-none", lambda: library.vector_stores.files.create(store_id, file_id="file-none")),
        (
            "file-none",
            lambda: library.vector_stores.files.retrieve("file-none", vector_store_id=store_id),
        ),
        (
            "vsfb_none",
            lambda: library.vector_stores.file_batches.retrieve(
                "vsfb_none", vector_store_id=store_id
            ),
        ),
    ]

    for name, call in calls:
        with pytest.raises(openai.NotFoundError, match=name):
            call()


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"query": " "}, "query"),
        ({"query": []}, "query"),
        ({"filters": {"type": "gt", "key": "a", "value": "b"}}, "filters.value"),
        ({"filters": {"type": "in", "key": "a", "value": "b"}}, "filters.value"),
        (
            {"filters": {"type": "and", "filters": [{"type": "eq", "key": "a", "value": ["b"]}]}},
            "filters.filters[0].value",
        ),
        ({"max_num_results": 51}, "max_num_results"),
    ],
)
def test_a_search_that_makes_no_sense_is_refused_by_its_field(library, facts, fields, param):
    with pytest.raises(openai.BadRequestError) as refused:
        library.vector_stores.search(facts[0], **{"query": "a", **fields})

    assert refused.value.param == param


def test_files_for_other_purposes_and_bad_sizes_are_refused(library, facts):
    batch = upload(library, "a.jsonl", b"{}", purpose="batch")
    static = {"max_chunk_size_tokens": 100, "chunk_overlap_tokens": 51}
    read = facts[1]["people.csv"]

    for param, add in (
        ("file_id", lambda: library.vector_stores.files.create(facts[0], file_id=batch)),
        ("file_ids[1]", lambda: library.vector_stores.create(file_ids=[read, batch])),
        (
            "file_ids[1]",
            lambda: library.vector_stores.file_batches.create(facts[0], file_ids=[read, batch]),
        ),
        (
            "files[0].file_id",
            lambda: library.vector_stores.file_batches.create(facts[0], files=[{"file_id": batch}]),
        ),
    ):
        with pytest.raises(openai.BadRequestError, match="for `batch`") as refused:
            add()
        assert refused.value.param == param
    with pytest.raises(openai.BadRequestError, match="0 to 50"):
        library.vector_stores.files.create(
            facts[0],
            file_id=read,
            chunking_strategy={"type": "static", "static": static},
        )


def test_vector_stores_without_an_embedding_model_are_refused(client):
    with pytest.raises(openai.APIStatusError, match="add a GGUF file") as refused:
        client.vector_stores.create()

    assert refused.value.status_code == 501


def test_ingestion_is_taken_up_after_kills_of_the_server_and_then_of_the_engine(
    tmp_path, minilm_file
):
    text = "".join(f"Line {number} of a text that is not short.\n" for number in range(400))
    flags = ("--model", str(minilm_file))
    with contextlib.ExitStack() as stack:
        served = stack.enter_context(serve(tmp_path, *flags))
        client = stack.enter_context(
            StrictOpenAI(base_url=served.base_url, api_key="none", max_retries=0)
        )
        file_id = upload(client, "a.txt", text.encode())
        store = client.vector_stores.create(
            file_ids=[file_id],
            chunking_strategy={
                "type": "static",
                "static": {"max_chunk_size_tokens": 100, "chunk_overlap_tokens": 10},
            },
        )
        time.sleep(0.1)
        assert client.vector_stores.retrieve(store.id).status == "in_progress"
        served.process.kill()
        served.process.wait()
        served = stack.enter_context(serve(tmp_path, *flags))
        client = stack.enter_context(
            StrictOpenAI(base_url=served.base_url, api_key="none", max_retries=0)
        )
        embedding = re.compile(r"^llm_backend_engine_running\{.*\} [1-9]", re.MULTILINE)
        wait_until(lambda: embedding.search(httpx.get(f"{served.address}/metrics").text))
        (engine,) = served.workers()
        os.kill(engine, signal.SIGKILL)
        wait_until(lambda: not Path(f"/proc/{engine}").exists())
        assert client.vector_stores.retrieve(store.id).status == "in_progress"

        after = wait(client, store.id)

        assert after.file_counts.completed == 1
        content = client.vector_stores.files.content(file_id, vector_store_id=store.id)
        assert content.data[0].text == text
        found = client.vector_stores.search(store.id, query="Line 377", max_num_results=50).data
        texts = [hit.content[0].text for hit in found]
        assert "Line 377 " in texts[0]
        assert len(texts) == len(set(texts))


def test_a_file_is_cut_into_chunks(library):
    text = "# One\n\n" + "A sentence of some words. " * 20 + "\n\n# Two\n\nThe end.\n"
    file_id = upload(library, "a.md", text.encode())

    answer = library.post("/chunks", body={"file_id": file_id, "chunk_capacity": 60}, cast_to=dict)
    same = library.post("/chunks", body={"id": file_id, "filename": "b.txt"}, cast_to=dict)

    assert answer["filename"] == "a.md"
    assert "".join(answer["chunks"]) == text
    assert len(answer["chunks"]) > 2
    assert same == {"id": file_id, "filename": "b.txt", "chunks": [text]}


def test_invalid_requests_for_chunks_are_refused(library):
    image = upload(library, "a.png", b"\x89PNG\x00")

    with pytest.raises(openai.BadRequestError, match="not text"):
        library.post("/chunks", body={"file_id": image}, cast_to=dict)
    with pytest.raises(openai.NotFoundError, match="file-none"):
        library.post("/chunks", body={"file_id": "file-none"}, cast_to=dict)
    for wrong in ({"chunk_capacity": 100}, {"file_id": ""}):
        with pytest.raises(openai.BadRequestError):
            library.post("/chunks", body=wrong, cast_to=dict)


def test_several_processes_need_a_server_for_vectors_and_share_it(tmp_path, minilm_file):
    flags = ("--model", str(minilm_file), "--processes", "2")
    with qdrant_server() as (url, _):
        environment = {"LLM_BACKEND_QDRANT_URL": url}
        with (
            serve(tmp_path, *flags, environment=environment) as served,
            StrictOpenAI(base_url=served.base_url, api_key="none", max_retries=0) as client,
        ):
            file_id = upload(client, "a.txt", b"The gate opens with 4711.")
            store = client.vector_stores.create(file_ids=[file_id])
            wait(client, store.id)
            found = [fresh_search(served, store.id) for _ in range(8)]
            client.vector_stores.files.delete(file_id, vector_store_id=store.id)
            left = [fresh_search(served, store.id) for _ in range(4)]

    assert found == [["a.txt"]] * 8
    assert left == [[]] * 4


def fresh_search(served: Served, store_id: str) -> list[str]:
    """Over a connection of its own, and so by whichever process takes it."""
    with StrictOpenAI(base_url=served.base_url, api_key="none", max_retries=0) as client:
        return names(client.vector_stores.search(store_id, query="gate").data)


def test_vector_stores_of_several_processes_need_qdrant(tmp_path):
    with (
        serve(tmp_path, "--processes", "2") as served,
        StrictOpenAI(base_url=served.base_url, api_key="none", max_retries=0) as client,
        pytest.raises(openai.APIStatusError, match="qdrant_url") as refused,
    ):
        client.vector_stores.create()

    assert refused.value.status_code == 501


def test_an_upstreams_model_makes_the_vectors(tmp_path, library_server):
    environment = {
        "LLM_BACKEND_MODELS": "none",
        "LLM_BACKEND_EMBEDDING_MODEL": "all-MiniLM-L6-v2",
        "OPENAI_API_KEY": "none",
        "OPENAI_BASE_URL": library_server.base_url,
    }
    with (
        serve(tmp_path, environment=environment, ready=False) as served,
        StrictOpenAI(base_url=served.base_url, api_key="none", max_retries=0) as client,
    ):
        file_id = upload(client, "a.txt", b"The gate opens with 4711.")
        store = client.vector_stores.create(file_ids=[file_id])
        assert wait(client, store.id).file_counts.completed == 1
        page = client.vector_stores.search(
            store.id, query="How does the door open?", ranking_options={"ranker": "none"}
        )

    assert names(page.data) == ["a.txt"]
    assert page.data[0].score > 0.3
