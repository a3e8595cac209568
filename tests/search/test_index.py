"""The vector index: what both implementations promise, and what only the embedded one has to."""

import asyncio
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from llm_backend.search import (
    AllOf,
    AnyOf,
    Comparison,
    Condition,
    EmbeddedIndex,
    IndexBusy,
    IndexUnavailable,
    NoCollection,
    VectorIndex,
    query_keywords,
)
from llm_backend.search.embedded import folder, open_shards
from llm_backend.search.qdrant import QdrantIndex
from tests.qdrant import QdrantStandIn, qdrant_server
from tests.search.points import DIMENSIONS, axis, point, random_points


@pytest.fixture(scope="module")
def qdrant() -> Iterator[tuple[str, QdrantStandIn]]:
    with qdrant_server() as served:
        yield served


@pytest_asyncio.fixture(params=["embedded", "server"])
async def index(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[VectorIndex]:
    one: VectorIndex = EmbeddedIndex(tmp_path / "vectors")
    if request.param == "server":
        url, _ = request.getfixturevalue("qdrant")
        one = QdrantIndex.at(url, api_key=None, prefix="test-")
        await one.drop("c")
    await one.create("c", DIMENSIONS)
    yield one
    await one.close()


async def check(folder: Path) -> None:
    index = EmbeddedIndex(folder)
    try:
        await index.check()
    finally:
        await index.close()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


async def nearest(
    index: VectorIndex, number: int, condition: Condition | None = None, *, limit: int = 10
) -> list[int]:
    found = await index.search_vectors("c", axis(number), limit=limit, condition=condition)
    return [int(one.id[-4:], 16) for one in found]


async def worded(index: VectorIndex, text: str) -> list[int]:
    found = await index.search_keywords("c", query_keywords(text), limit=10, condition=None)
    return [int(one.id[-4:], 16) for one in found]


async def test_index_orders_points_by_cosine_similarity(index: VectorIndex) -> None:
    await index.upsert("c", [point(1), point(2), point(3)])

    found = await index.search_vectors("c", axis(2), limit=2, condition=None)

    assert found[0].id == point(2).id
    assert found[0].score == pytest.approx(1.0)
    assert len(found) == 2


async def test_index_keyword_score_favours_rare_words(index: VectorIndex) -> None:
    await index.upsert("c", [point(number, "the common words") for number in range(1, 6)])
    await index.upsert("c", [point(6, "the zebra"), point(7, "nothing of it")])

    found = await worded(index, "common zebra")

    assert found[0] == 6
    assert 7 not in found


async def test_index_upsert_replaces_points_with_the_same_id(index: VectorIndex) -> None:
    await index.upsert("c", [point(1, "before")])
    await index.upsert("c", [point(1, "after")])

    assert await worded(index, "before") == []
    assert await worded(index, "after") == [1]


async def test_index_removes_all_points_of_a_document(index: VectorIndex) -> None:
    await index.upsert(
        "c", [point(1, document="a"), point(2, document="a"), point(3, document="b")]
    )

    await index.remove("c", "a")

    assert await nearest(index, 1) == [3]


async def test_index_replaces_attributes(index: VectorIndex) -> None:
    await index.upsert("c", [point(1, colour="red", size=3)])

    await index.set_attributes("c", "d", {"colour": "blue"})

    assert await nearest(index, 1, Comparison(key="colour", operator="eq", value="blue")) == [1]
    assert await nearest(index, 1, Comparison(key="colour", operator="eq", value="red")) == []
    assert await nearest(index, 1, Comparison(key="size", operator="eq", value=3)) == []


CONDITIONS: list[tuple[Condition, set[int]]] = [
    (Comparison(key="a.b[]\"'", operator="eq", value="x"), {1}),
    (Comparison(key="n", operator="eq", value=3), {2}),
    (Comparison(key="n", operator="eq", value=3.5), {3}),
    (Comparison(key="n", operator="ne", value=3), {1, 3, 4}),
    (Comparison(key="n", operator="gt", value=3), {3}),
    (Comparison(key="n", operator="gte", value=3), {2, 3}),
    (Comparison(key="n", operator="lt", value=3.5), {2}),
    (Comparison(key="n", operator="lte", value=3.5), {2, 3}),
    (Comparison(key="n", operator="in", value=[3, 3.5, 9]), {2, 3}),
    (Comparison(key="n", operator="nin", value=[3]), {1, 3, 4}),
    (Comparison(key="n", operator="in", value=[]), set()),
    (Comparison(key="n", operator="nin", value=[]), {1, 2, 3, 4}),
    (Comparison(key="b", operator="eq", value=True), {4}),
    (Comparison(key="b", operator="eq", value="true"), set()),
    (AllOf(conditions=[]), {1, 2, 3, 4}),
    (AnyOf(conditions=[]), set()),
    (
        AnyOf(
            conditions=[
                Comparison(key="b", operator="eq", value=True),
                AllOf(
                    conditions=[
                        Comparison(key="n", operator="gt", value=1),
                        Comparison(key="n", operator="lt", value=3.2),
                    ]
                ),
            ]
        ),
        {2, 4},
    ),
]


@pytest.mark.parametrize(("condition", "kept"), CONDITIONS)
async def test_index_filters_by_conditions(
    index: VectorIndex, condition: Condition, kept: set[int]
) -> None:
    odd = {"a.b[]\"'": "x"}
    points = [point(1, **odd), point(2, n=3), point(3, n=3.5), point(4, b=True)]
    await index.upsert("c", points)

    assert set(await nearest(index, 1, condition)) == kept


async def test_index_reports_a_missing_collection(
    index: VectorIndex,
) -> None:
    with pytest.raises(NoCollection, match="qdrant_url"):
        await index.upsert("none", [point(1)])
    with pytest.raises(NoCollection, match="qdrant_url"):
        await index.search_vectors("none", axis(1), limit=1, condition=None)

    await index.remove("none", "d")
    await index.drop("none")


async def test_index_drops_a_collection(index: VectorIndex) -> None:
    await index.upsert("c", [point(1)])

    await index.drop("c")

    with pytest.raises(NoCollection):
        await nearest(index, 1)
    await index.create("c", DIMENSIONS)
    assert await nearest(index, 1) == []


# the server


@pytest.mark.filterwarnings("ignore:Api key is used with an insecure connection")
async def test_qdrant_index_sends_the_key_and_translates_errors(
    qdrant: tuple[str, QdrantStandIn],
) -> None:
    url, stand_in = qdrant
    index = QdrantIndex.at(url, api_key="secret", prefix="test-")
    await index.check()
    assert stand_in.keys[-1] == "secret"
    stand_in.fails_with = 500

    with pytest.raises(IndexUnavailable, match="answers 500"):
        await index.check()

    stand_in.fails_with = None
    await index.close()


async def test_qdrant_index_makes_the_payload_index_that_an_earlier_try_lacks(
    qdrant: tuple[str, QdrantStandIn],
) -> None:
    url, stand_in = qdrant
    index = QdrantIndex.at(url, api_key=None, prefix="broken-off-")
    stand_in.fails_at = "/index"
    with pytest.raises(IndexUnavailable):
        await index.create("c", DIMENSIONS)
    stand_in.fails_at = None

    await index.create("c", DIMENSIONS)

    assert "broken-off-c" in stand_in.indexed
    await index.close()


async def test_qdrant_index_reports_an_unreachable_server() -> None:
    index = QdrantIndex.at("http://127.0.0.1:9", api_key=None, prefix="test-")

    with pytest.raises(IndexUnavailable, match="cannot be reached"):
        await index.upsert("c", [point(1)])

    await index.close()


# the embedded one


async def test_embedded_index_persists(tmp_path: Path) -> None:
    first = EmbeddedIndex(tmp_path)
    await first.create("c", DIMENSIONS)
    await first.upsert("c", [point(1, "word")])
    await first.close()

    second = EmbeddedIndex(tmp_path)

    assert await nearest(second, 1) == [1]
    assert await worded(second, "WÖRD") == [1]
    await second.close()


def test_embedded_index_folder_belongs_to_one_process(tmp_path: Path) -> None:
    code = f"""
import asyncio
from pathlib import Path
from llm_backend.search import EmbeddedIndex
async def main():
    index = EmbeddedIndex(Path({str(tmp_path)!r}))
    await index.check()
    print("held", flush=True)
    await asyncio.sleep(60)
asyncio.run(main())
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"

        with pytest.raises(IndexBusy, match="qdrant_url"):
            asyncio.run(check(tmp_path))

        other.kill()
    asyncio.run(check(tmp_path))


async def test_embedded_index_writes_survive_a_kill(tmp_path: Path) -> None:
    pid = multiprocessing.get_context("spawn").Process(target=_put_and_die, args=(tmp_path,))
    pid.start()
    await asyncio.to_thread(pid.join)
    index = EmbeddedIndex(tmp_path)

    assert await nearest(index, 1) == [1]
    await index.close()


def _put_and_die(folder: Path) -> None:
    async def put() -> None:
        index = EmbeddedIndex(folder)
        await index.create("c", DIMENSIONS)
        await index.upsert("c", [point(1)])
        os.kill(os.getpid(), signal.SIGKILL)

    asyncio.run(put())


async def test_embedded_index_closes_the_least_recently_used_collections(tmp_path: Path) -> None:
    index = EmbeddedIndex(tmp_path, collections=2)
    for number in range(4):
        await index.create(f"c{number}", DIMENSIONS)
        await index.upsert(f"c{number}", [point(number)])

    found = [
        await index.search_vectors(f"c{number}", axis(number), limit=1, condition=None)
        for number in range(4)
    ]

    assert [len(one) for one in found] == [1, 1, 1, 1]
    await index.close()


async def test_embedded_index_serves_a_collection_during_its_optimization(
    tmp_path: Path,
) -> None:
    index = EmbeddedIndex(tmp_path, growth=1000)
    await index.create("c", DIMENSIONS)
    await index.upsert("c", random_points(1500))
    while not (tmp_path / "c.copy").exists():  # noqa: ASYNC110 # another process's doing
        await asyncio.sleep(0.005)
    await index.upsert("c", [point(0xF001, "meanwhile", document="new")])
    await index.remove("c", "gone")
    assert await worded(index, "meanwhile") == [0xF001]

    await index.wait_idle()

    assert await worded(index, "meanwhile") == [0xF001]
    assert await worded(index, "w1499") == [1499]
    assert (tmp_path / "c.built").read_text() == "1500"
    assert names(tmp_path) == ["c", "c.built", "owner.lock"]
    await index.close()


async def test_embedded_index_optimizes_again_after_growth_meanwhile(tmp_path: Path) -> None:
    index = EmbeddedIndex(tmp_path, growth=400)
    await index.create("c", DIMENSIONS)
    for begin in range(0, 1500, 300):
        await index.upsert("c", random_points(300, begin=begin))

    await index.wait_idle()

    assert int((tmp_path / "c.built").read_text()) > 1000
    await index.close()


async def test_embedded_index_tries_a_failed_optimization_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    index = EmbeddedIndex(tmp_path, growth=100, retry_s=0.01)
    await index.create("c", DIMENSIONS)
    obstacle = tmp_path / "c.copy"
    obstacle.write_text("a file in the place of the copy")
    await index.upsert("c", random_points(200))
    while not caplog.records:  # noqa: ASYNC110 # the log has no event to wait for
        await asyncio.sleep(0.005)

    obstacle.unlink(missing_ok=True)
    await index.wait_idle()

    assert (tmp_path / "c.built").read_text() == "200"
    await index.close()


async def test_embedded_index_drop_keeps_the_lock_of_a_waiting_write(tmp_path: Path) -> None:
    index = EmbeddedIndex(tmp_path)
    await index.create("c", DIMENSIONS)
    dropping = asyncio.create_task(index.drop("c"))
    await asyncio.sleep(0)
    waiting = asyncio.create_task(index.upsert("c", [point(1)]))

    await dropping
    is_locked = index._write_lock("c").locked()

    with pytest.raises(NoCollection):
        await waiting
    assert is_locked
    assert not index._write_locks
    await index.close()


async def test_embedded_index_closed_during_a_write_begins_nothing_more(tmp_path: Path) -> None:
    index = EmbeddedIndex(tmp_path, growth=100)
    await index.create("c", DIMENSIONS)
    writing = asyncio.create_task(index.upsert("c", random_points(1500)))
    await asyncio.sleep(0.01)  # its thread has begun

    await index.close()
    await writing
    begun = asyncio.all_tasks() - {asyncio.current_task()}
    with pytest.raises(IndexUnavailable, match="closed"):
        await index.upsert("c", [point(1)])

    assert not begun


async def test_embedded_index_closed_during_a_replacement_keeps_the_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_replacing, may_replace = threading.Event(), threading.Event()

    def replace_later(path: Path, points: int) -> None:
        is_replacing.set()
        may_replace.wait()
        folder.replace(path, points)

    monkeypatch.setattr(open_shards, "replace", replace_later)
    index = EmbeddedIndex(tmp_path, growth=100)
    await index.create("c", DIMENSIONS)
    await index.upsert("c", random_points(200))
    await asyncio.to_thread(is_replacing.wait)

    closing = asyncio.create_task(index.close())
    for _ in range(10):  # until the cancelled task has begun to clean up
        await asyncio.sleep(0)
    await asyncio.get_running_loop().run_in_executor(index._copying_thread, int)
    is_kept = (tmp_path / "c.copy").is_dir()
    may_replace.set()
    await closing

    assert is_kept
    assert (tmp_path / "c.built").read_text() == "200"
    assert names(tmp_path) == ["c", "c.built", "owner.lock"]


async def test_embedded_index_recovers_an_interrupted_replacement(tmp_path: Path) -> None:
    index = EmbeddedIndex(tmp_path)
    await index.create("c", DIMENSIONS)
    await index.upsert("c", [point(1)])
    await index.close()
    (tmp_path / "c").rename(tmp_path / "c.next")
    (tmp_path / "c.old").mkdir()

    index = EmbeddedIndex(tmp_path)

    assert await nearest(index, 1) == [1]
    assert names(tmp_path) == ["c", "owner.lock"]
    await index.close()


async def test_embedded_index_refuses_a_folder_until_it_is_recovered(tmp_path: Path) -> None:
    left = tmp_path / "c.copy"
    left.write_text("a file where a folder is removed")
    index = EmbeddedIndex(tmp_path)

    for _ in range(2):
        with pytest.raises(IndexUnavailable, match="cannot be recovered"):
            await index.check()

    left.unlink()
    await index.check()
    await index.close()
