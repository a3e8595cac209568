"""Files that are to be in a vector store: which are refused, and by which name."""

from types import SimpleNamespace
from typing import Any

import pytest

from llm_backend.access import Caller, Project
from llm_backend.controllers.vector_stores.ingestion.new_files import new_files
from llm_backend.errors import NotFound, QuotaExceeded
from llm_backend.store import Blobs, Bucket, Database, FileStore, migrate


@pytest.mark.parametrize(
    ("where", "param"), [("file_id", "file_id"), ("files[{}].file_id", "files[0].file_id")]
)
async def test_a_file_that_is_not_there_is_refused_by_its_field(
    tmp_path: Any, where: str, param: str
) -> None:
    async with Database.open(f"sqlite:///{tmp_path / 'state.db'}") as database:
        await migrate(database)
        files = FileStore(database, Blobs(database, Bucket((tmp_path / "files").as_uri())))
        vector_stores = SimpleNamespace(check=lambda: None)
        services: Any = SimpleNamespace(files=files, vector_stores=vector_stores)

        with pytest.raises(NotFound, match="No file has the id `nope`") as refused:
            await new_files(
                services,
                Caller(),
                [{"file_id": "nope"}],
                SimpleNamespace(input_limit=1),
                where=where,
            )

    assert refused.value.param == param


async def test_a_project_over_its_spend_limit_adds_no_files() -> None:
    def check(_project: Project) -> None:
        raise QuotaExceeded("All is spent.")

    services: Any = SimpleNamespace(
        vector_stores=SimpleNamespace(check=lambda: None),
        access=SimpleNamespace(spending=SimpleNamespace(check=check)),
    )
    caller, embedder = Caller(project=Project(id="p", name="p")), SimpleNamespace(input_limit=1)

    assert await new_files(services, caller, [], embedder) == []
    with pytest.raises(QuotaExceeded):
        await new_files(services, caller, [{"file_id": "file-1"}], embedder)
