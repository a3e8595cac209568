"""Threads: a response and the predecessors that only its thread continues. A thread stops before a
predecessor with a second continuation."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from sqlalchemy import Connection, func, select

from llm_backend.store.tables.conversations import items, response_items, responses


@dataclass(kw_only=True)
class Thread:
    """The `seq` of each response of a thread, and the bytes of them and their items. Items that
    other objects also contain are counted, so this is an upper bound."""

    seqs: list[int] = field(default_factory=list)
    size_bytes: int = 0


def ending_with(connection: Connection, seqs: Sequence[int]) -> dict[int, Thread]:
    """The thread that ends with each of these responses, by the response's number."""
    chain = (
        select(responses.c.seq.label("last"), responses.c.seq, responses.c.previous_id)
        .where(responses.c.seq.in_(seqs))
        .cte("chain", recursive=True)
    )
    later = responses.alias("later")
    continuations = (
        select(func.count()).where(later.c.previous_id == responses.c.id).scalar_subquery()
    )
    chain = chain.union_all(
        select(chain.c.last, responses.c.seq, responses.c.previous_id).where(
            responses.c.id == chain.c.previous_id, continuations == 1
        )
    )
    item_bytes = (
        select(func.coalesce(func.sum(items.c.size_bytes), 0))
        .join(response_items, response_items.c.item_seq == items.c.seq)
        .where(response_items.c.response_seq == responses.c.seq)
        .correlate(responses)
        .scalar_subquery()
    )
    links = select(chain.c.last, responses.c.seq, responses.c.size_bytes + item_bytes).join(
        responses, responses.c.seq == chain.c.seq
    )
    threads = {seq: Thread() for seq in seqs}
    for last, seq, size_bytes in connection.execute(links):
        threads[last].seqs.append(seq)
        threads[last].size_bytes += int(size_bytes)
    return threads
