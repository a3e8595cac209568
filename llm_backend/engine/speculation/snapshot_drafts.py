"""Drafts for models whose recurrent state is taken back from snapshots. Pure.

llama.cpp computes a pass in parts, each with equally many tokens of sequences in neighbouring
slots, and a later part may move the states of an earlier one without their snapshots. So a pass
with drafts is one part: one token and equally long drafts for each sequence.
"""

from dataclasses import replace

from llm_backend.engine.sequence import ScheduledTokens


def is_single_part(scheduled: list[ScheduledTokens]) -> bool:
    """True if llama.cpp computes a pass without drafts in one part: one token of each sequence, in
    neighbouring slots."""
    slots = [item.sequence.slot for item in scheduled]
    first = slots[0] if slots else None
    if first is None or any(item.count != 1 for item in scheduled):
        return False
    return slots == list(range(first, first + len(slots)))


def level_drafts(scheduled: list[ScheduledTokens]) -> list[ScheduledTokens]:
    """Returns the pass with all drafts as long as the shortest one."""
    length = min((len(item.draft) for item in scheduled), default=0)
    return [replace(item, draft=item.draft[:length]) for item in scheduled]
