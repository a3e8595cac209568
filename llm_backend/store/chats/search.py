"""Search of chats by the words of their titles, messages and answers."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

from sqlalchemy import Connection, select

from llm_backend.store.chats import word_index
from llm_backend.store.chats.chat_texts import texts_of, title_of
from llm_backend.store.chats.chats import sort_keys
from llm_backend.store.chats.words import ExcerptPart, excerpt, sought_words
from llm_backend.store.database.database import Database
from llm_backend.store.database.ownership import as_owner, current_owner
from llm_backend.store.errors import Missing, UnknownCursor
from llm_backend.store.keyset_pages import PAGE_LIMIT_OPTION, Page
from llm_backend.store.tables.chats import chats

_SEARCH_STEPS = 8  # transactions that index new chats before a search
_SWEEP_STEPS = 250
_PAUSE_S = 0.2  # between the steps of a sweep: each one holds the GIL for milliseconds


@dataclass(frozen=True, kw_only=True)
class FoundChat:
    """A chat that matches a search, with an excerpt around a word of the query."""

    id: str
    created_at: int
    model: str
    title: str
    metadata: Mapping[str, str]
    excerpt: Sequence[ExcerptPart]


class ChatSearch:
    """Finds stored chats by words; indexes the first `limit_characters` of each."""

    def __init__(self, database: Database, *, limit_characters: int) -> None:
        self._database = database
        self._limit_characters = limit_characters

    async def sweep(self) -> None:
        """Indexes a limited number of chats that are not indexed yet. With `limit_characters` 0
        they are left for another server."""
        if self._limit_characters:
            await self._index(_SWEEP_STEPS, pause_s=_PAUSE_S)

    async def find(
        self,
        query: str,
        *,
        metadata: Mapping[str, str] | None = None,
        after: str | None = None,
        limit: int = 20,
    ) -> Page[FoundChat]:
        """Returns a page of the chats that have all pairs of `metadata` and words that begin with
        those of `query`, latest first. Raises `UnknownCursor`."""
        await self._index(_SEARCH_STEPS)
        owner = current_owner()
        return await self._database.read(
            _find, query, metadata or {}, None if owner is None else owner.id, after, limit
        )

    async def _index(self, steps: int, pause_s: float = 0) -> None:
        with as_owner(None):
            for _ in range(steps):
                if not await self._database.write(word_index.index_some, self._limit_characters):
                    break
                await asyncio.sleep(pause_s)


def _find(
    connection: Connection,
    query: str,
    metadata: Mapping[str, str],
    owner: str | None,
    after: str | None,
    limit: int,
) -> Page[FoundChat]:
    before = None if after is None else _seq(connection, after)
    words = sought_words(query)
    if not words:
        return Page(items=(), has_more=False)
    facts = word_index.facts_of(owner, metadata)
    seqs = word_index.find(connection, words, facts, before=before, limit=limit + 1)
    shown = _within_page(connection, seqs[:limit])
    query_rows = select(chats).where(chats.c.seq.in_(shown)).order_by(chats.c.seq.desc())
    rows = connection.execute(query_rows).all()
    items = []
    for row, texts in zip(rows, word_index.read_texts(connection, rows), strict=True):
        parts = texts.metadata, texts.messages, texts.response
        items.append(
            FoundChat(
                id=row.id,
                created_at=row.created_at,
                model=row.model,
                title=title_of(*parts),
                metadata=texts.metadata,
                excerpt=excerpt(texts_of({}, *parts[1:]), query),
            )
        )
    return Page(items=items, has_more=len(seqs) > len(shown))


def _within_page(connection: Connection, seqs: Sequence[int]) -> Sequence[int]:
    """Returns the first of these chats, at least one, that fit into the bytes of a page."""
    limit_bytes = connection.get_execution_options()[PAGE_LIMIT_OPTION]
    sizes = select(chats.c.seq, chats.c.size_bytes).where(chats.c.seq.in_(seqs))
    size_of = {row.seq: row.size_bytes for row in connection.execute(sizes)}
    totals = accumulate(size_of.get(seq, 0) for seq in seqs)
    fitting = sum(total <= limit_bytes for total in totals)
    return seqs[: max(1, fitting)]


def _seq(connection: Connection, after: str) -> int:
    try:
        return sort_keys(connection, after)[1]
    except Missing as error:
        raise UnknownCursor(after, "after") from error
