"""A file in a vector store given other attributes, in the store and in the vector index."""

from collections.abc import Mapping

from llm_backend.controllers.vector_stores.library import VectorLibrary, index_errors_translated
from llm_backend.store import StoredVectorFile
from llm_backend.store.vector_stores import Attribute

__all__ = ["update_attributes"]


async def update_attributes(
    library: VectorLibrary, store_id: str, file_id: str, attributes: Mapping[str, Attribute]
) -> StoredVectorFile:
    """The file with these attributes. Of several who describe it at once the last one wins, in the
    store and in the index. Raises `Missing`; where the index cannot be reached, nothing changes."""
    file = await library.stores.file(store_id, file_id)
    if file.status == "completed":
        await _tell_index(library, file, attributes)
    file = await library.stores.describe(store_id, file_id, attributes)
    told = None
    while file.status == "completed" and file.attributes != told:  # others may have come between
        told = file.attributes
        await _tell_index(library, file, told)
        file = await library.stores.file(store_id, file_id)
    return file


async def _tell_index(
    library: VectorLibrary, file: StoredVectorFile, attributes: Mapping[str, Attribute]
) -> None:
    with index_errors_translated():
        await library.index.describe(file.store_id, file.document, attributes)
