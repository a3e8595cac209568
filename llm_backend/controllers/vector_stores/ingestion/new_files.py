"""Validates the files that a request adds to a vector store."""

import uuid
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, NotRequired, TypedDict

from llm_backend.access import Caller, Principal
from llm_backend.controllers.rendering.store_errors import translate_store_errors
from llm_backend.controllers.services import Services
from llm_backend.controllers.services.embedders import TextEmbedder
from llm_backend.controllers.vector_stores.request_values import attributes_from, chunking_from
from llm_backend.errors import InvalidRequest, NotFound
from llm_backend.store import Missing, NewVectorFile, StoredFile

if TYPE_CHECKING:
    from llm_backend.contract import api_types as api

PURPOSES = ("assistants", "user_data")  # purposes of files that can be added


class NewFileEntry(TypedDict):
    """A file to add, with the values that it shares with others of its request."""

    file_id: str
    attributes: NotRequired["api.VectorStoreFileAttributes"]
    chunking_strategy: "api.ChunkingStrategyRequestParam | None"


async def new_files(
    services: Services,
    caller: Caller,
    entries: "Sequence[NewFileEntry | api.CreateVectorStoreFileRequest]",
    embedder: TextEmbedder,
    *,
    where: str = "file_id",
) -> list[NewVectorFile]:
    """Returns a file to add for each of `entries`, whose embedding is charged to the caller.

    Of duplicates in `entries` the last one counts. `where` is the request's field of an id, with
    `{}` for its index. Raises `NotFound`, `InvalidRequest` for a file of another purpose, and
    `QuotaExceeded` if a spend limit is reached.
    """
    services.vector_stores.check()
    if entries and caller.project is not None:
        services.access.spending.check(caller.project)
    requested_by = asdict(Principal.of(caller))
    by_id: dict[str, NewVectorFile] = {}
    for index, one in enumerate(entries):
        param = where.format(index)
        file = await _file(services, one["file_id"], param)
        if file.purpose not in PURPOSES:
            raise InvalidRequest(
                f"The file `{file.id}` is for `{file.purpose}`; vector stores take files for "
                f"{' or '.join(f'`{purpose}`' for purpose in PURPOSES)}.",
                param=param,
            )
        by_id[file.id] = NewVectorFile(
            document=f"vsf_{uuid.uuid4().hex}",
            file_id=file.id,
            filename=file.filename,
            attributes=attributes_from(one.get("attributes")),
            chunking=chunking_from(one.get("chunking_strategy"), input_limit=embedder.input_limit),
            requested_by=requested_by,
        )
    return list(by_id.values())


async def _file(services: Services, id: str, param: str) -> StoredFile:
    with translate_store_errors("file"):
        try:
            return await services.files.get(id)
        except Missing as error:
            raise NotFound(f"No file has the id `{id}`.", param=param) from error
