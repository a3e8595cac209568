"""Chunked prefill: divides the remaining token budget of a pass among prompts. Pure.

Interactive and short prompts come first, and a quarter is reserved for the sequence that has
waited longest. On CPUs passes of more than 128 tokens are hardly cheaper per token. So
without unified cells a pass is closed to further interactive prompts once prompts that finish in it
fill half of its budget; with unified cells, all of it. While
interactive requests are expected, prompts of batch requests get only a limited part. So do
long prompts while interactive sequences decode (`prefill_budget`).
"""

from enum import Enum

from llm_backend.engine.messages import Priority
from llm_backend.engine.scheduling.prefill_budget import PrefillLimits
from llm_backend.engine.sequence import ScheduledTokens, Sequence

_PASSES_OF_LONG_PROMPT = 8  # a prompt that needs more passes is long


class _Kind(Enum):
    """Kinds of prompt tokens, each with a budget in a pass."""

    ANY = "any"
    BATCH = "batch"
    LONG = "long"


class PrefillChunkPlanner:
    """Plans the prefill of each pass, and counts the passes between chunks of long prompts.

    Once prompts of `close_after_tokens` together finish their prefill in a pass, no further
    interactive prompt joins it. `logit_rows` limits the prompt positions with logits.
    """

    def __init__(self, *, batch_tokens: int, close_after_tokens: int, logit_rows: int) -> None:
        self._long_tokens = _PASSES_OF_LONG_PROMPT * batch_tokens
        self._close_after_tokens = close_after_tokens
        self._logit_rows = logit_rows
        self._passes_before_long = 0
        self.prefill_tokens = 0  # in the newest plan
        self.has_long_chunk = False  # in the newest plan

    def plan(
        self,
        prefilling: list[Sequence],
        budget: int,
        limits: PrefillLimits,
        *,
        has_interactive_decoding: bool,
    ) -> list[ScheduledTokens]:
        """Plans a pass with `budget` prompt tokens. `has_interactive_decoding`: interactive
        sequences decode in it."""
        budgets = dict.fromkeys(_Kind, budget)
        if limits.batch is not None:
            budgets[_Kind.BATCH] = limits.batch
        if has_interactive_decoding:
            budgets[_Kind.LONG] = self._long_budget(limits, budget)
        long_budget = budgets[_Kind.LONG]
        chunks = self._chunks(prefilling, budgets)
        self.prefill_tokens = sum(chunk.count for chunk in chunks)
        self.has_long_chunk = budgets[_Kind.LONG] < long_budget
        if self.has_long_chunk:
            self._passes_before_long = limits.passes_between
        return chunks

    def _long_budget(self, limits: PrefillLimits, budget: int) -> int:
        if self._passes_before_long:
            self._passes_before_long -= 1
            return 0
        return budget if limits.long is None else limits.long

    def _chunks(
        self, prefilling: list[Sequence], budgets: dict[_Kind, int]
    ) -> list[ScheduledTokens]:
        """Divides `budgets` among sequences, and subtracts the planned tokens from them."""
        budget = budgets[_Kind.ANY]
        if not prefilling or budget <= 0:
            return []
        oldest = min(prefilling, key=lambda sequence: sequence.arrived_at)
        chunks, rows, completing = dict.fromkeys(prefilling, 0), self._logit_rows, 0
        ordered = sorted(
            prefilling,
            key=lambda one: (one.priority is Priority.BATCH, one.uncomputed_tokens),
        )
        for sequence, limit in [(oldest, max(1, budget // 4)), *((one, budget) for one in ordered)]:
            kinds, earlier = self._kinds(sequence), chunks[sequence]
            is_closed = completing >= self._close_after_tokens and not sequence.generated
            if is_closed and _Kind.BATCH not in kinds:
                continue
            spent = len(sequence.prompt_logits(earlier))
            requested = _prefill_tokens(sequence, rows + spent) - earlier
            count = min(requested, limit, *(budgets[kind] for kind in kinds))
            rows -= len(sequence.prompt_logits(earlier + count)) - spent
            for kind in kinds:
                budgets[kind] -= count
            chunks[sequence] = earlier + count
            if count and chunks[sequence] == sequence.uncomputed_tokens and not sequence.generated:
                completing += chunks[sequence]
        return [ScheduledTokens(sequence, count) for sequence, count in chunks.items() if count]

    def _kinds(self, sequence: Sequence) -> set[_Kind]:
        kinds = {_Kind.ANY}
        if sequence.priority is Priority.BATCH:
            kinds.add(_Kind.BATCH)
        pending = sequence.uncomputed_tokens
        if not sequence.generated:
            # a long prompt stays long: its last chunks attend to all earlier tokens
            pending = max(pending, sequence.prompt_tokens - sequence.cached_tokens)
        if pending > self._long_tokens:
            kinds.add(_Kind.LONG)
        return kinds


def _prefill_tokens(sequence: Sequence, rows: int) -> int:
    """Number of tokens that a pass may compute of a prompt, with at most `rows` prompt logits."""
    if sequence.logits_from is None or not sequence.needs_prompt_logits:
        return sequence.tokens_before_run
    without_logits = max(0, sequence.logits_from - sequence.computed)
    return min(sequence.tokens_before_run, without_logits + rows)
