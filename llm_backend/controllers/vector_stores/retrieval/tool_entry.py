"""Parses a `file_search` entry of `tools`: its vector stores, filters and ranking options."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from llm_backend.controllers.vector_stores.request_values import condition_from, ranking_from
from llm_backend.controllers.vector_stores.retrieval.hybrid_search import Query
from llm_backend.errors import InvalidRequest, NotFound
from llm_backend.store import Missing, VectorStores

if TYPE_CHECKING:
    from llm_backend.contract import api_types as api

STORES_LIMIT = 16  # per entry


async def check_store_ids(
    stores: VectorStores, entry: "api.FileSearchTool", where: str
) -> Sequence[str]:
    """Returns the ids of the stores that the entry at `where` names, without duplicates. Raises
    `InvalidRequest` for none or too many, and `NotFound` for an unknown one."""
    field = f"{where}.vector_store_ids"
    store_ids = list(dict.fromkeys(entry["vector_store_ids"]))
    if not 1 <= len(store_ids) <= STORES_LIMIT:
        raise InvalidRequest(
            f"`vector_store_ids` must name 1 to {STORES_LIMIT} vector stores.", param=field
        )
    for store_id in store_ids:
        try:
            await stores.get(store_id)
        except Missing as error:
            raise NotFound(f"No vector store has the id `{store_id}`.", param=field) from error
    return store_ids


def query_from(entry: "api.FileSearchTool", where: str, *, limit: int) -> Query:
    """Parses the query without its texts; `limit` is the default number of passages."""
    weights, least_score = ranking_from(entry.get("ranking_options"), where=f"{where}.")
    return Query(
        texts=(),
        limit=int(entry.get("max_num_results") or limit),
        condition=condition_from(entry.get("filters"), f"{where}.filters"),
        weights=weights,
        least_score=least_score,
    )
