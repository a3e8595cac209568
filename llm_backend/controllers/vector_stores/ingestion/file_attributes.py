"""Updates the attributes of a vector store file, in the database and in the vector index."""

from collections.abc import Mapping

from llm_backend.controllers.vector_stores.library import VectorLibrary, translate_index_errors
from llm_backend.store import StoredVectorFile
from llm_backend.store.vector_stores import Attribute


async def update_attributes(
    library: VectorLibrary, store_id: str, file_id: str, attributes: Mapping[str, Attribute]
) -> StoredVectorFile:
    """Sets the attributes and returns the file. Of concurrent updates the last one wins, in the
    database and in the index. Raises `Missing`; if the index is unreachable, nothing changes."""
    file = await library.stores.file(store_id, file_id)
    if file.status == "completed":
        await _update_index(library, file, attributes)
    file = await library.stores.describe(store_id, file_id, attributes)
    indexed = None
    # A concurrent update may have come between.
    while file.status == "completed" and file.attributes != indexed:
        indexed = file.attributes
        await _update_index(library, file, indexed)
        file = await library.stores.file(store_id, file_id)
    return file


async def _update_index(
    library: VectorLibrary, file: StoredVectorFile, attributes: Mapping[str, Attribute]
) -> None:
    with translate_index_errors():
        await library.index.set_attributes(file.store_id, file.document, attributes)
