"""Inputs of the model: measured on two cores, each with the benchmark that it names."""

from dataclasses import dataclass

__all__ = ["CHAT", "CONVERSATION", "MEASURED", "Chat", "Measured"]


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One server of two cores with a model of 135 million parameters in Q8_0."""

    tokens_s: tuple[tuple[int, float], ...] = ((1, 112.0), (8, 217.0), (16, 273.0))
    """By number of concurrent streams, with prompts of 90 tokens included: `engine_peers`."""
    slots: int = 16
    prefill_s: float = 580.0
    """Prompt tokens computed in a second: 925 in 1.6 s, S16 of `engine_pairs`."""
    cached_chats: int = 72
    """Conversations whose cells a server holds: 16 slots, and 56 states in 1 GiB of host memory."""
    event_s: float = 46e-6
    """Of one core for each event of a stream: `event_cost`."""
    relayed_s: float = 650e-6
    """For a request that is relayed whole by one API process, its key checked, held against the
    document, and stored, while load and upstream share the two cores: `peers.gateways`."""
    writes_s: float = 5_000.0
    """Chats that one database makes durable in a second, by 16 writers: `store_writes`."""
    connections: int = 10
    """To PostgreSQL, at most, of each API process: llm_backend/store/database/postgresql.py."""
    api_mib: float = 99.0
    """Resident at rest with PostgreSQL: `serve_start --database`."""
    engine_mib: float = 1_047.0
    """Resident at most, the model and the cells of 16 slots included: `engine_peers`."""


@dataclass(frozen=True, kw_only=True)
class Chat:
    """Load of one question and its answer: assumed, not measured."""

    answer_tokens: int = 128
    stored_bytes: int = 3_000
    every_s: float = 60.0
    """Between two questions of an active user."""
    turns: int = 1
    """Of a conversation; each sends again what was said before."""
    question_tokens: int = 90


MEASURED = Measured()
CHAT = Chat()
CONVERSATION = Chat(turns=8)
