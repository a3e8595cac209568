"""`file_search`: results shown to the model, and citations of an answer."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from llm_backend.controllers.responses.loop.file_search_tool import FileSearchKind
from llm_backend.controllers.services.server_tools import CallEnded, ServerCall, ToolContext
from llm_backend.controllers.vector_stores.retrieval.passages import (
    Passage,
    find_citations,
    format_passages,
)
from llm_backend.errors import ServiceUnavailable
from llm_backend.search import ScoredPoint
from llm_backend.store import StoredVectorStore
from llm_backend.store.vector_stores import FoundChunk

PASSAGES = [
    Passage(file_id="file-a", filename="a.txt", text="One."),
    Passage(file_id="file-b", filename="b.txt", text="Two."),
    Passage(file_id="file-a", filename="a.txt", text="Three."),
]


class Stores:
    """There is every store, and none can be searched."""

    now = 0

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def get(self, id: str) -> Any:
        self.asked.append(id)
        if len(self.asked) > 1:
            raise ServiceUnavailable("Not now.")
        return None


def kind(**more: bool) -> FileSearchKind:
    library: Any = SimpleNamespace(stores=Stores())
    return FileSearchKind(library, limit=3, **{"searches_first": False, **more})


def asked(*items: dict[str, Any]) -> ToolContext:
    tool = {"type": "file_search", "vector_store_ids": ["vs_1"]}
    return ToolContext(tool=tool, where="tools[0]", body={}, items=items, meter=None)


def user(content: Any) -> dict[str, Any]:
    return {"type": "message", "role": "user", "content": content}


async def test_a_search_that_fails_is_an_item_and_no_end() -> None:
    search = kind()
    async with search.open(asked()) as tool:
        call = ServerCall(name="file_search", arguments='{"queries": ["a"]}')
        steps = [step async for step in tool.run(call)]

    ended = steps[-1]
    assert isinstance(ended, CallEnded)
    assert ended.item["status"] == "failed"
    assert "could not be searched" in search.messages(ended.item)[1]["content"]


def test_a_search_that_broke_off_has_not_found_nothing() -> None:
    _, output = kind().messages({**searched("fs_1"), "status": "incomplete"})

    assert "could not be searched" in output["content"]


async def test_a_malformed_call_is_searched_as_text() -> None:
    async with kind().open(asked()) as tool:
        steps = [step async for step in tool.run(ServerCall(name="file_search", arguments="gate"))]

    assert steps[0].item["queries"] == ["gate"]


async def test_the_question_is_searched_for_first_where_the_server_is_set_so() -> None:
    parts = [{"type": "input_text", "text": "What is"}, {"type": "input_text", "text": "it?"}]
    async with kind(searches_first=True).open(asked(user("Hi"), user(parts))) as tool:
        assert [call.arguments for call in tool.initial_calls()] == ['{"queries":["What is it?"]}']
    async with kind(searches_first=False).open(asked(user("Hi"))) as tool:
        assert tool.initial_calls() == ()
    answer = {"type": "message", "role": "assistant", "content": "Hello."}
    async with kind(searches_first=True).open(asked(user("Hi"), answer)) as tool:
        assert tool.initial_calls() == ()


class Unchanged:
    """An embedding model whose vectors are the texts."""

    async def get(self, name: str) -> Any:
        return self

    async def embed(self, texts: Sequence[str], meter: object) -> Sequence[str]:
        return texts


class Findable:
    """A library in which each query finds the one file that it names."""

    now = 0

    def __init__(self) -> None:
        self.stores = self.index = self
        self.embedders = Unchanged()

    async def get(self, id: str) -> StoredVectorStore:
        return StoredVectorStore(
            id=id, created_at=0, name="", last_active_at=0, embedding_model="m", dimensions=1
        )

    async def record_use(self, store: StoredVectorStore) -> None: ...

    async def search_vectors(self, store_id: str, vector: str, **more: Any) -> list[ScoredPoint]:
        return [ScoredPoint(id=vector, score=1.0)]

    async def search_keywords(self, store_id: str, words: Any, **more: Any) -> list[ScoredPoint]:
        return []

    async def chunks(self, ids: Sequence[str]) -> list[FoundChunk]:
        return [
            FoundChunk(point_id=id, text=id, file_id=f"file-{id}", filename=id, attributes={})
            for id in ids
        ]


def searched(id: str, *names: str) -> dict[str, Any]:
    results = [{"file_id": f"file-{name}", "filename": name, "text": name} for name in names]
    item = {"id": id, "type": "file_search_call", "status": "completed", "queries": ["q"]}
    return {**item, "results": results}


async def test_passages_are_numbered_across_all_searches() -> None:
    before = searched("fs_0", "old", "older")
    library: Any = Findable()
    files = FileSearchKind(library, limit=3, searches_first=False)
    async with files.open(asked(before, user("And?"))) as tool:
        items = [before, *[await ended(tool, name) for name in ("a", "b")]]
        told = [tool.readers["file_search_call"](item)[1]["content"] for item in items]
        cites = [tool.annotations(text) for text in ("[1]", "[3]", "[4]", "None.")]

    assert [text[:3] for text in told] == ["[1]", "[3]", "[4]"]
    found = [[one["file_id"] for one in some] for some in cites]
    assert found == [["file-old"], ["file-a"], ["file-b"], ["file-a", "file-b"]]


async def ended(tool: Any, query: str) -> dict[str, Any]:
    arguments = f'{{"queries": ["{query}"]}}'
    steps = [step async for step in tool.run(ServerCall(name="file_search", arguments=arguments))]
    item: dict[str, Any] = steps[-1].item
    return item


def test_passages_are_numbered_for_the_model() -> None:
    assert format_passages(PASSAGES).startswith("[1] a.txt\nOne.\n\n[2] b.txt\nTwo.")
    assert "Nothing was found" in format_passages([])


def test_an_answer_cites_files_by_the_numbers_of_passages() -> None:
    assert [(one.file_id, one.index) for one in find_citations("As said [2].", PASSAGES)] == [
        ("file-b", 1)
    ]
    assert [one.file_id for one in find_citations("[1] and [3]", PASSAGES)] == ["file-a"]


def test_an_answer_without_numbers_cites_all_passages() -> None:
    assert [one.file_id for one in find_citations("Certainly [9].", PASSAGES)] == [
        "file-a",
        "file-b",
    ]
    assert find_citations("Certainly.", []) == []
