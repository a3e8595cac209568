"""Files taken in and searched: real rows and a real index, with vectors that are easy to see."""

import asyncio
import logging
import threading
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import pytest_asyncio
from sqlalchemy import func, select

from llm_backend.app.jobs import removal_kinds
from llm_backend.controllers.services.vector_store_services import VectorStoreServices
from llm_backend.controllers.vector_stores.files import update_attributes
from llm_backend.controllers.vector_stores.ingestion import ingestion_worker
from llm_backend.controllers.vector_stores.ingestion.ingestion_worker import (
    ATTEMPTS_PER_FILE,
    RETRY_LIMIT_S,
    RETRY_S,
    Ingestion,
    IngestionLimits,
    Removal,
)
from llm_backend.controllers.vector_stores.retrieval.hybrid_search import Query, search
from llm_backend.errors import (
    InvalidRequest,
    NotFound,
    ServiceUnavailable,
    Unsupported,
    UpstreamFailed,
)
from llm_backend.extraction import ExtractedText, Extractor, Format, NotShort, ReaderKilled
from llm_backend.search import Comparison, EmbeddedIndex, VectorIndex, text_keywords
from llm_backend.search.base import IndexUnavailable, NoCollection, SparseVector
from llm_backend.store import (
    Blobs,
    Bucket,
    Database,
    JobKind,
    Jobs,
    NewJob,
    NewVectorFile,
    RetryLater,
    StoredFile,
    StoredVectorStore,
    VectorStores,
    migrate,
    run_jobs,
)
from llm_backend.store import FileStore as UploadedFiles
from llm_backend.store.jobs import job_rows
from llm_backend.store.tables.vector_stores import vector_stores as vector_stores_table
from llm_backend.store.vector_stores import (
    INGEST,
    INGEST_LONG,
    REMOVE_FILE,
    REMOVE_STORE,
    StoredChunking,
)
from tests.clock import Clock

NO_LEDGER: Any = None  # the ledger of files without a principal
LINES = 150  # chunks of a large file: more than a search takes candidates


class Embedder:
    """Embedding model: texts about gates are similar, others a little. It fails at `!`, and raises
    `failures` first."""

    def __init__(self, failures: Sequence[Exception] = ()) -> None:
        self._failures = list(failures)
        self.embedded: list[Sequence[str]] = []

    async def get(self, name: str) -> "Embedder":
        return self

    async def count(self, texts: Sequence[str]) -> list[int]:
        return [len(text.split()) for text in texts]

    async def embed(self, texts: Sequence[str], meter: object) -> list[list[float]]:
        self.embedded.append(texts)
        if self._failures:
            raise self._failures.pop(0)
        if "for ever" in "".join(texts):
            await asyncio.Event().wait()
        if "!" in "".join(texts):
            raise RuntimeError("broken off")
        return [[1.0, 0.0] if "gate" in text else [0.8, 0.6] for text in texts]


class Files:
    """Each file's text is its id's."""

    def __init__(self, texts: dict[str, str]) -> None:
        self._texts = texts
        self.reads = 0

    async def get(self, id: str) -> Any:
        return SimpleNamespace(size_bytes=1, filename=self._texts[id], media_type="")

    def read(self, file: Any, start: int, end: int) -> None: ...

    async def extract(
        self, pieces: Any, *, filename: str, media_type: str, only_short: bool
    ) -> ExtractedText:
        self.reads += 1
        if filename == "killed":
            raise ReaderKilled("The process that read the file was killed; try again.")
        if filename == "long" and only_short:
            raise NotShort
        return ExtractedText(text=filename, format=Format.TEXT)


@pytest_asyncio.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    async with Database.open(f"sqlite:///{tmp_path / 'state.db'}") as one:
        await migrate(one)
        yield one


@pytest.fixture
def jobs(database: Database) -> Jobs:
    return Jobs(database)


@pytest.fixture
def stores(database: Database, jobs: Jobs) -> VectorStores:
    return VectorStores(database, jobs)


@pytest_asyncio.fixture
async def indexes(tmp_path: Path) -> AsyncIterator[list[EmbeddedIndex]]:
    both = [EmbeddedIndex(tmp_path / name) for name in ("one", "two")]
    yield both
    for index in both:
        await index.close()


def vector_stores(
    stores: VectorStores, index: VectorIndex, failures: Sequence[Exception] = ()
) -> VectorStoreServices:
    embedders: Any = Embedder(failures)
    return VectorStoreServices(stores=stores, vectors=index, embedders=embedders)


def new_file(name: str) -> NewVectorFile:
    chunking = StoredChunking(max_tokens=8, overlap_tokens=0)
    return NewVectorFile(document=f"vsf_{name}", file_id=name, filename=name, chunking=chunking)


async def add_store(stores: VectorStores, *names: str, id: str = "vs_1") -> None:
    store = StoredVectorStore(
        id=id, created_at=0, name="", last_active_at=stores.now, embedding_model="m"
    )
    await stores.add(store, [new_file(name) for name in names])


async def take_in(
    jobs: Jobs,
    vector_stores: VectorStoreServices,
    texts: dict[str, str],
    kind: str = INGEST,
    **limits: float,
) -> None:
    """The next file."""
    files: Any = Files(texts)
    (job,) = await jobs.claim(kind, 1, await vector_stores.index.name())
    bounds: Any = IngestionLimits(**limits)
    only_short = kind == INGEST
    worker = Ingestion(vector_stores, files, files, NO_LEDGER, limits=bounds, only_short=only_short)
    await worker.work(job)


async def remove(jobs: Jobs, vector_stores: VectorStoreServices, kind: str) -> None:
    """Runs a removal job, which deletes points from the vector index."""
    (job,) = await jobs.claim(kind, 1, await vector_stores.index.name())
    await Removal(vector_stores).work(job)


async def found(vector_stores: VectorStoreServices, **more: Any) -> set[str]:
    hits = await search(vector_stores, ["vs_1"], Query(texts=["gate"], limit=10, **more), None)
    return {hit.file_id for hit in hits}


@pytest.mark.parametrize("more", [{}, {"weights": None}])
async def test_a_file_under_ingestion_consumes_no_results(jobs, stores, indexes, more) -> None:
    live = "A door opens with 4711."
    large = "\n\n".join(f"The gate number {number} opens with a key." for number in range(LINES))
    shelf = vector_stores(stores, indexes[0])
    await add_store(stores, "live")
    await take_in(jobs, shelf, {"live": live})
    await stores.add_batch("vs_1", "vsfb_1", [new_file("large")])
    with pytest.raises(RuntimeError):
        await take_in(jobs, shelf, {"large": f"{large}\n\nStop!"})

    meanwhile = await found(shelf, **more)
    await stores.cancel_batch("vs_1", "vsfb_1")
    afterwards = await found(shelf, **more)

    assert meanwhile == afterwards == {"live"}


async def test_a_file_that_is_complete_is_found(jobs, stores, indexes) -> None:
    shelf = vector_stores(stores, indexes[0])
    await add_store(stores, "a")
    await take_in(jobs, shelf, {"a": "The gate opens."})

    assert await found(shelf) == {"a"}
    assert (await stores.get_with_counts("vs_1")).files.completed == 1


async def test_words_are_counted_beside_the_event_loop(jobs, stores, indexes, monkeypatch) -> None:
    threads: list[threading.Thread] = []

    def recorded(text: str) -> SparseVector:
        threads.append(threading.current_thread())
        return text_keywords(text)

    monkeypatch.setattr(ingestion_worker, "text_keywords", recorded)
    shelf = vector_stores(stores, indexes[0])
    await add_store(stores, "a")
    await take_in(jobs, shelf, {"a": "The gate opens."})

    assert threads
    assert threading.current_thread() not in threads


async def test_a_query_is_embedded_once_for_all_stores_of_a_model(jobs, stores, indexes) -> None:
    shelf = vector_stores(stores, indexes[0])
    await add_store(stores, "a")
    await add_store(stores, "b", id="vs_2")
    for _ in range(2):
        await take_in(jobs, shelf, {"a": "The gate opens.", "b": "A gate."})
    embedder: Any = shelf.embedders
    embedder.embedded.clear()

    hits = await search(shelf, ["vs_1", "vs_2"], Query(texts=["gate"], limit=10), None)

    assert {hit.store_id for hit in hits} == {"vs_1", "vs_2"}
    assert embedder.embedded == [["gate"]]


async def test_the_vectors_of_a_deleted_file_are_removed_and_those_of_others_stay(
    database, jobs, stores, indexes, tmp_path
) -> None:
    index, shelf = indexes[0], vector_stores(stores, indexes[0])
    uploaded = UploadedFiles(database, Blobs(database, Bucket((tmp_path / "files").as_uri())))
    named = {"purpose": "user_data", "filename": "a", "media_type": "text/plain"}
    await uploaded.add(StoredFile(id="a", created_at=int(time.time()), content=(), **named))
    await add_store(stores, "a", "b")
    for _ in range(2):
        await take_in(jobs, shelf, {"a": "The gate opens.", "b": "A gate."})

    await uploaded.delete("a")
    await remove(jobs, shelf, REMOVE_FILE)
    (left,) = await index.search_vectors("vs_1", [1.0, 0.0], limit=10, condition=None)

    (chunk,) = await stores.chunks([left.id])
    assert (chunk.file_id, chunk.text) == ("b", "A gate.")


async def test_the_vectors_and_rows_of_a_deleted_store_are_removed(
    database, jobs, stores, indexes
) -> None:
    index, shelf = indexes[0], vector_stores(stores, indexes[0])
    await add_store(stores, "a")
    await take_in(jobs, shelf, {"a": "The gate opens."})

    await stores.delete("vs_1")
    await remove(jobs, shelf, REMOVE_STORE)

    with pytest.raises(NoCollection):
        await index.search_vectors("vs_1", [1.0, 0.0], limit=10, condition=None)
    rows = select(func.count()).select_from(vector_stores_table)
    assert await database.read(lambda connection: connection.scalar(rows)) == 0


async def test_filters_use_attributes_changed_during_ingestion(jobs, stores, tmp_path) -> None:
    class LateIndex(EmbeddedIndex):
        """Index that changes a row's attributes after it has set those of its points."""

        async def set_attributes(self, collection: str, document: str, attributes: Any) -> None:
            await super().set_attributes(collection, document, attributes)
            await stores.set_attributes("vs_1", "a", {"color": "red"})

    await add_store(stores, "a")
    late = LateIndex(tmp_path / "vectors")
    await take_in(jobs, vector_stores(stores, late), {"a": "The gate opens."})

    color = Comparison(key="color", operator="eq", value="red")
    assert await found(vector_stores(stores, late), condition=color) == {"a"}
    await late.close()


async def test_the_last_update_of_attributes_wins_in_store_and_index(
    jobs, stores, tmp_path
) -> None:
    class LateIndex(EmbeddedIndex):
        """While it takes in the first colour, another request gives the file another one."""

        async def set_attributes(self, collection: str, document: str, attributes: Any) -> None:
            await super().set_attributes(collection, document, attributes)
            if attributes == {"color": "red"} and not others:
                others.append(await update_attributes(shelf, "vs_1", "a", {"color": "blue"}))

    others: list[Any] = []
    await add_store(stores, "a")
    late = LateIndex(tmp_path / "vectors")
    shelf = vector_stores(stores, late)
    await take_in(jobs, shelf, {"a": "The gate opens."})
    file = await update_attributes(shelf, "vs_1", "a", {"color": "red"})

    stored = await stores.file("vs_1", "a")
    assert file.attributes == stored.attributes == {"color": "red"}
    red, blue = (Comparison(key="color", operator="eq", value=one) for one in ("red", "blue"))
    assert await found(shelf, condition=red) == {"a"}
    assert await found(shelf, condition=blue) == set()
    await late.close()


async def test_a_store_is_not_split_between_two_indexes(jobs, stores, indexes) -> None:
    one, other = (vector_stores(stores, index) for index in indexes)
    await add_store(stores, "a", "b")
    name = await indexes[0].name()
    assert await stores.claim_index("vs_1", name) == name  # the two came at the same time

    await take_in(jobs, other, {"a": "The gate opens."})
    taken_there = await jobs.claim(INGEST, 2, await indexes[1].name())  # "b" is for anybody
    await jobs.release(taken_there[0], counts=False)
    for _ in range(2):
        await take_in(jobs, one, {"a": "The gate opens.", "b": "The gate opens."})

    assert [job.subject for job in taken_there] == ["vsf_b"]
    assert await found(one) == {"a", "b"}


async def test_files_are_ingested_by_the_server_with_the_index(jobs, stores, indexes) -> None:
    one, other = (vector_stores(stores, index) for index in indexes)
    await add_store(stores, "a")
    await take_in(jobs, one, {"a": "The gate opens."})
    await stores.add_batch("vs_1", "vsfb_1", [new_file("b")])

    assert await jobs.claim(INGEST, 1, await other.index.name()) == []
    await take_in(jobs, one, {"b": "The gate opens."})
    assert await found(one) == {"a", "b"}


async def test_a_file_whose_index_is_gone_fails_with_a_reason(database, stores, indexes) -> None:
    shelves = [vector_stores(stores, index) for index in indexes]
    await add_store(stores, "a")
    assert await stores.claim_index("vs_1", await indexes[0].name())
    again = replace(new_file("a"), document="vsf_again")
    await stores.add_batch("vs_1", "vsfb_1", [again])
    tomorrow = Jobs(database, clock=lambda: time.time() + 25 * 3600)
    await take_in(tomorrow, shelves[1], {"a": "The gate opens."})

    file = await stores.file("vs_1", "a")
    assert (file.status, file.error and file.error.code) == ("failed", "server_error")


async def test_an_index_keeps_its_name(tmp_path: Path) -> None:
    names = []
    for folder in ("one", "one", "two"):
        index = EmbeddedIndex(tmp_path / folder)
        names.append(await index.name())
        await index.close()

    assert names[0] == names[1] != names[2]


@pytest.mark.parametrize("text", ["long", "The gate opens again."])
async def test_a_long_file_moves_to_the_queue_of_long_files(jobs, stores, indexes, text) -> None:
    shelf = vector_stores(stores, indexes[0])
    await add_store(stores, "a", "b")
    for _ in range(2):
        await take_in(jobs, shelf, {"a": text, "b": "A gate."}, short_characters=10)

    assert (await stores.file("vs_1", "a")).status == "in_progress"
    assert (await stores.file("vs_1", "b")).status == "completed"
    await take_in(jobs, shelf, {"a": text}, INGEST_LONG)
    assert (await stores.file("vs_1", "a")).status == "completed"


async def test_a_removed_long_file_is_not_ingested(jobs, stores, indexes) -> None:
    shelf = vector_stores(stores, indexes[0])
    await add_store(stores, "a")
    await take_in(jobs, shelf, {"a": "long"})

    await stores.delete_file("vs_1", "a")

    assert await jobs.claim(INGEST_LONG, 1, await shelf.index.name()) == []


async def test_a_file_over_the_timeout_fails_with_a_reason(jobs, stores, indexes) -> None:
    shelf = vector_stores(stores, indexes[0])
    await add_store(stores, "a")
    await take_in(jobs, shelf, {"a": "This takes for ever."}, timeout_s=0.05)

    file = await stores.file("vs_1", "a")
    assert file.error is not None
    assert (file.status, file.error.code) == ("failed", "server_error")
    assert "longer than 0.05 s" in file.error.message


async def test_a_file_whose_reader_is_killed_in_each_attempt_fails(
    database, indexes, caplog
) -> None:
    caplog.set_level(logging.CRITICAL)
    clock = Clock()
    jobs = Jobs(database, lease_s=3600, clock=clock)
    stores = VectorStores(database, jobs, clock=clock)
    shelf = vector_stores(stores, indexes[0])
    await add_store(stores, "killed")
    files: Any = Files({"killed": "killed"})
    worker = Ingestion(shelf, files, files, NO_LEDGER, limits=IngestionLimits(), only_short=True)

    async def index_names() -> list[str]:
        return [await shelf.index.name()]

    kind = JobKind(
        name=INGEST,
        worker=worker,
        max_concurrency=1,
        attempts=ATTEMPTS_PER_FILE,
        affinities=index_names,
    )
    async with run_jobs(jobs, [kind]), asyncio.timeout(30):
        while (file := await stores.file("vs_1", "killed")).status == "in_progress":
            clock.now += 1
            jobs.wake()
            await asyncio.sleep(0.005)

    assert file.error is not None
    assert (file.status, file.error.code) == ("failed", "server_error")
    assert files.reads == ATTEMPTS_PER_FILE == 8  # as docs/vector-stores.md says


async def test_an_overloaded_model_is_waited_for_within_an_attempt(
    jobs, stores, indexes, monkeypatch
) -> None:
    monkeypatch.setattr(ingestion_worker, "PAUSE_S", 0.0)
    overload = ServiceUnavailable("It embeds no more now.", retry_after_s=0.01)
    shelf = vector_stores(stores, indexes[0], [overload] * (ingestion_worker.EMBEDDING_TRIES - 1))
    await add_store(stores, "a")

    await take_in(jobs, shelf, {"a": "The gate opens."})

    assert (await stores.file("vs_1", "a")).status == "completed"


@pytest.mark.parametrize(
    ("failure", "delay_s"),
    [
        (ServiceUnavailable("It embeds no more now.", retry_after_s=120), 120),
        (UpstreamFailed("No upstream answers."), ingestion_worker.RETRY_S),
        (IndexUnavailable("The Qdrant server cannot be reached."), ingestion_worker.RETRY_S),
    ],
)
async def test_a_file_whose_model_is_unavailable_is_ingested_later(
    jobs, stores, indexes, failure, delay_s
) -> None:
    shelf = vector_stores(stores, indexes[0], [failure])
    await add_store(stores, "a")

    with pytest.raises(RetryLater) as later:
        await take_in(jobs, shelf, {"a": "The gate opens."})

    assert later.value.delay_s == delay_s
    assert (await stores.file("vs_1", "a")).status == "in_progress"


async def test_a_file_whose_bytes_are_missing_fails_with_a_reason(
    database, jobs, stores, indexes, tmp_path
) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"The gate opens."

    blobs = Blobs(database, Bucket((tmp_path / "files").as_uri()))
    uploaded = UploadedFiles(database, blobs)
    named = {"purpose": "user_data", "filename": "a.txt", "media_type": "text/plain"}
    async with blobs.writing(pieces()) as blob:
        await uploaded.add(
            StoredFile(id="a", created_at=int(time.time()), content=(blob,), **named)
        )
    (tmp_path / "files" / blob.key / "0").unlink()
    shelf = vector_stores(stores, indexes[0])
    await add_store(stores, "a")
    extractor = Extractor()
    worker = Ingestion(
        shelf, uploaded, extractor, NO_LEDGER, limits=IngestionLimits(), only_short=True
    )
    (job,) = await jobs.claim(INGEST, 1, await shelf.index.name())

    await worker.work(job)

    file = await stores.file("vs_1", "a")
    assert file.error is not None
    assert (file.status, file.error.code) == ("failed", "server_error")
    assert file.error.message == "The bytes of the file `a` are missing on this server."
    assert await jobs.claim(INGEST, 1, await shelf.index.name()) == []


@pytest.mark.parametrize(
    ("refusal", "code"),
    [
        (InvalidRequest("The text is too long."), "invalid_file"),
        (NotFound("The model `m` does not exist."), "server_error"),
    ],
)
async def test_a_file_that_the_embedding_model_refuses_fails_with_the_reason(
    jobs, stores, indexes, refusal, code
) -> None:
    shelf = vector_stores(stores, indexes[0], [refusal])
    await add_store(stores, "a")

    await take_in(jobs, shelf, {"a": "The gate opens."})

    file = await stores.file("vs_1", "a")
    assert file.error is not None
    assert (file.status, file.error.code) == ("failed", code)
    assert file.error.message == refusal.message


@pytest.mark.parametrize(
    ("refusal", "error"),
    [
        (InvalidRequest("The query is too long."), InvalidRequest),
        (NotFound("The model `m` does not exist."), Unsupported),  # no 404: the store exists
    ],
)
async def test_a_search_whose_query_the_embedding_model_refuses_has_the_reason(
    jobs, stores, indexes, refusal, error
) -> None:
    await add_store(stores, "a")
    await take_in(jobs, vector_stores(stores, indexes[0]), {"a": "The gate opens."})

    with pytest.raises(error, match=refusal.message) as refused:
        await found(vector_stores(stores, indexes[0], [refusal]))

    assert type(refused.value) is error


class DownIndex:
    """Vector index of a server that is down."""

    def __init__(self) -> None:
        self.is_up = False
        self.removed: list[str] = []

    async def name(self) -> str:
        return "down"

    async def drop(self, collection: str) -> None:
        await self.remove(collection, collection)

    async def remove(self, collection: str, document: str) -> None:
        if not self.is_up:
            raise IndexUnavailable("The Qdrant server cannot be reached.")
        self.removed.append(document)


@pytest.mark.parametrize(
    ("kind", "details"), [(REMOVE_FILE, {"store_id": "vs_1"}), (REMOVE_STORE, {})]
)
async def test_points_are_removed_after_days_of_an_outage(database, caplog, kind, details) -> None:
    caplog.set_level(logging.CRITICAL)
    clock, index = Clock(), DownIndex()
    jobs, began_at = Jobs(database, lease_s=3600, clock=clock), clock.now
    shelf = vector_stores(VectorStores(database, jobs, clock=clock), cast(Any, index))
    await jobs.add(NewJob(kind=kind, subject="subject", details=details, affinity="down"))
    async with run_jobs(jobs, removal_kinds(shelf)), asyncio.timeout(60):
        while await database.read(job_rows.count, kind=kind, limit=1):
            index.is_up = clock.now - began_at > 3 * 24 * 3600
            clock.now += RETRY_LIMIT_S
            jobs.wake()
            await asyncio.sleep(0.005)

    assert index.removed == ["subject"]


async def test_a_removal_waits_longer_from_attempt_to_attempt(jobs, stores) -> None:
    shelf = vector_stores(stores, cast(Any, DownIndex()))
    await jobs.add(NewJob(kind=REMOVE_STORE, subject="vs_1", affinity="down"))
    (job,) = await jobs.claim(REMOVE_STORE, 1, "down")
    delays = []
    for attempt in (1, 2, 99):
        with pytest.raises(RetryLater) as later:
            await Removal(shelf).work(replace(job, attempt=attempt))
        delays.append(later.value.delay_s)

    assert delays == [RETRY_S, 2 * RETRY_S, RETRY_LIMIT_S]
