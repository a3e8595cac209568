"""Allocation of a slot: copies, restored state and cached tokens that it begins with."""

from dataclasses import dataclass

from llm_backend.engine.kv_cache.prefix import Prefix


@dataclass(frozen=True, kw_only=True)
class Copy:
    """Instruction to replace the cells of slot `target` by a copy of the cells of `source`."""

    source: int
    target: int


@dataclass(frozen=True, kw_only=True)
class SlotTokens:
    """The tokens whose cells a slot holds."""

    slot: int
    tokens: list[int]


@dataclass(frozen=True, kw_only=True)
class SlotAllocation:
    """Allocation of `slot` to a sequence. The caller makes the copies in their order, restores the
    state `restored` into the slot if there is one, and then keeps the first `cached_tokens`.
    `overwritten` are the overwritten cached prefixes that are long enough to be saved."""

    slot: int
    cached_tokens: int
    copies: tuple[Copy, ...] = ()
    restored: Prefix | None = None
    overwritten: tuple[SlotTokens, ...] = ()
