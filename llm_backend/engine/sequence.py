"""Sequence: the tokens of one generation, with those that the next pass computes."""

from dataclasses import dataclass

from llm_backend.engine.media_runs import Run, position_of
from llm_backend.engine.messages import Priority
from llm_backend.engine.messages.address import Address


@dataclass(kw_only=True, eq=False)
class Sequence:
    """A list of tokens, the first `computed` of which are in the cells of `slot`.

    Only its owner changes it, the scheduler or a drafter, except by `append`. A sequence has no
    phases: its uncomputed tokens are computed, at first those of the prompt, later one token at a
    time.
    """

    # the waiting queue counts running sequences by their request
    request: Address
    index: int
    tokens: list[int]
    max_length: int  # the length in tokens at which it ends
    # the length at which its oldest tokens are dropped, all but the first `n_keep`; None: never
    context_tokens: int | None = None
    n_keep: int = 0
    arrived_at: float
    priority: Priority = Priority.INTERACTIVE
    runs: tuple[Run, ...] = ()  # of images and audio, in their order
    # position of the first requested prompt logits; None: only the last token's are needed
    logits_from: int | None = None
    # number of leading prompt tokens that are worth caching, as later sequences share them; None if
    # no such sequences are expected: the whole prompt is worth caching
    shared_tokens: int | None = None
    computed: int = 0
    slot: int | None = None
    # largest number of tokens that were computed at a preemption, or cached when it got a slot:
    # only tokens beyond it are progress
    recompute_baseline: int = 0
    has_started: bool = False
    cached_tokens: int = 0  # of the prompt, from a cached prefix when it first got a slot
    dropped_tokens: int = 0  # by context shifts

    def __post_init__(self) -> None:
        self.prompt_tokens = len(self.tokens)

    @property
    def uncomputed_tokens(self) -> int:
        """Number of tokens that are not computed yet."""
        return len(self.tokens) - self.computed

    @property
    def assigned_slot(self) -> int:
        """The slot of a running sequence."""
        assert self.slot is not None, "a running sequence has a slot"
        return self.slot

    @property
    def next_run(self) -> Run | None:
        """The run of an image or audio to compute next; None if text is next."""
        return next((run for run in self.runs if run.start <= self.computed < run.end), None)

    @property
    def tokens_before_run(self) -> int:
        """Number of tokens to compute before the next run, or before the end."""
        starts = (run.start for run in self.runs if run.start > self.computed)
        return next(starts, len(self.tokens)) - self.computed

    @property
    def generated(self) -> int:
        """Number of generated tokens."""
        return len(self.tokens) - self.prompt_tokens

    @property
    def is_full(self) -> bool:
        """True if it has reached its length limit."""
        return len(self.tokens) >= self.max_length

    @property
    def room(self) -> int:
        """Number of tokens that may be appended before the sequence ends or is shifted."""
        end = self.max_length
        if self.context_tokens is not None:
            end = min(end, self.context_tokens)
        return max(0, end - len(self.tokens))

    @property
    def needs_shift(self) -> bool:
        """True if a running sequence fills its context."""
        return self.context_tokens is not None and len(self.tokens) >= self.context_tokens

    @property
    def needs_prompt_logits(self) -> bool:
        """True if prompt positions are still to be computed with their logits."""
        return self.logits_from is not None and self.computed < self.prompt_tokens - 1

    @property
    def reusable_tokens(self) -> list[int]:
        """Tokens that may come from a cached prefix: those before the first needed logits."""
        return self.tokens[: self.logits_from] if self.needs_prompt_logits else self.tokens[:-1]

    @property
    def reusable_tokens_before_media(self) -> list[int]:
        """Reusable tokens before the first image or audio."""
        return self.reusable_tokens[: self.runs[0].start] if self.runs else self.reusable_tokens

    def prompt_logits(self, count: int) -> range:
        """Positions of requested logits among the next `count` tokens, but the prompt's last."""
        if self.logits_from is None:
            return range(0)
        first, end = max(self.computed, self.logits_from), self.computed + count
        return range(first, max(first, min(end, self.prompt_tokens - 1)))

    def position(self, index: int) -> int:
        """The position of the token at an index that is outside all runs."""
        return position_of(self.runs, index) if self.runs else index

    def append(self, token: int) -> None:
        """Appends a generated or forced `token`."""
        self.tokens.append(token)

    def shift(self) -> None:
        """Drops the oldest tokens after the first `n_keep`, so that half of the context remains.

        Later tokens move to the left. `prompt_tokens` becomes smaller by as much, and negative when
        generated tokens are dropped.
        """
        assert self.context_tokens is not None, "a sequence is shifted when it fills its context"
        dropped = len(self.tokens) - max(self.context_tokens // 2, self.n_keep + 1)
        del self.tokens[self.n_keep : self.n_keep + dropped]
        self.max_length -= dropped
        self.prompt_tokens -= dropped
        self.dropped_tokens += dropped


@dataclass(frozen=True)
class ScheduledTokens:
    """Tokens of one sequence that the next pass computes: its next `count` tokens, and after its
    last one `draft`, speculative tokens for verification."""

    sequence: Sequence
    count: int
    draft: tuple[int, ...] = ()

    @property
    def tokens(self) -> list[int]:
        """The tokens to compute."""
        start = self.sequence.computed
        return [*self.sequence.tokens[start : start + self.count], *self.draft]

    @property
    def needs_sampling(self) -> bool:
        """True if the pass computes the last uncomputed token, whose logits the next token is
        sampled from."""
        return self.count == self.sequence.uncomputed_tokens

    @property
    def output_positions(self) -> list[int]:
        """Positions whose logits are needed: those that predict a prompt token if prompt
        logprobs are wanted, and the last one and the draft if the next token is sampled."""
        end = self.sequence.computed + self.count
        positions = list(self.sequence.prompt_logits(self.count))
        if self.needs_sampling:
            positions += range(end - 1, end + len(self.draft))
        return positions
