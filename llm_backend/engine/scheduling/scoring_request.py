"""One `ScoreLabels` request, from `submit` to its answer: the paths of its label trees and the
scorers that read their logits. Only a few paths are in the scheduler at any time."""

import itertools
from collections import abc

import numpy as np

from llm_backend.engine.media_runs import Run
from llm_backend.engine.messages import (
    Delta,
    LabelsScored,
    MediaSpan,
    Priority,
    ScoreLabels,
    SlotAssigned,
)
from llm_backend.engine.messages.address import Address
from llm_backend.engine.sampling import NoChoice, Row, log_sum_exp
from llm_backend.engine.scheduling.generation_request import media_spans
from llm_backend.engine.scheduling.label_tree import LabelPath, LabelTree, Node
from llm_backend.engine.scheduling.scoring_validation import ValidatedScoring
from llm_backend.engine.sequence import Sequence

Logprobs = dict[Node, dict[int, float]]
"""Logprobs of the next tokens of each node."""


class PrefixPrefill:
    """Prefill of the shared prompt; its logits are ignored. Its slot then ends with the prompt, so
    that a recurrent state, which cannot be truncated, can be copied from it."""

    constraint = None

    def __init__(self, sequence: Sequence) -> None:
        self.sequence = sequence
        self.is_finished = False

    def add_prompt_logprob(self, row: Row, position: int) -> None:
        """Ignores the logits."""

    def advance_with_draft(
        self, rows: abc.Sequence[Row], draft: abc.Sequence[int]
    ) -> tuple[Delta | None, int]:
        """Notes that the prompt is computed."""
        self.is_finished = True
        return None, 0


class PathScorer:
    """Adds the logprobs of one path to `logprobs`, from the logits of its sequence, which ends with
    the path."""

    constraint = None

    def __init__(
        self, sequence: Sequence, tree: LabelTree, path: LabelPath, logprobs: Logprobs
    ) -> None:
        self.sequence = sequence
        self.is_finished = False
        self._tree = tree
        self._path = path
        self._logprobs = logprobs

    def add_prompt_logprob(self, row: Row, position: int) -> None:
        """Reads the logits at a position of the prompt: [vocab] float32."""
        length = position + 1 - (len(self.sequence.tokens) - len(self._path.tokens))
        node = self._path.tokens[:length]
        tokens = self._tree.next_tokens(node)
        self._logprobs[node] = dict(zip(tokens, _log_probabilities(row, tokens), strict=True))

    def advance_with_draft(
        self, rows: abc.Sequence[Row], draft: abc.Sequence[int]
    ) -> tuple[Delta | None, int]:
        """Reads the logits of the last position, with which the path ends. Raises `NoChoice` if
        logits are NaN."""
        self.add_prompt_logprob(rows[0], len(self.sequence.tokens) - 1)
        self.is_finished = True
        return None, 0


class ScoringRequest:
    """A `ScoreLabels` command and the scorers of its paths. At most `width` scorers are in the
    scheduler, as each holds a copy of the shared prompt's tokens. The first one computes the
    prompt; the others find it in the cache. Unless the model's state `can_roll_back`, the first
    sequence is the prompt alone."""

    needs_slot = True

    def __init__(
        self,
        address: Address,
        command: ScoreLabels,
        prompt: ValidatedScoring,
        arrived_at: float,
        *,
        width: int,
        can_roll_back: bool = True,
    ) -> None:
        self.address = address
        self.command = command
        self.consumers: list[PathScorer | PrefixPrefill] = []  # in the scheduler
        self.arrived_at = arrived_at
        self.has_started = False
        self._prompt = prompt
        self._width = width
        self._logprobs: list[Logprobs] = [{} for _ in prompt.questions]
        self._remaining: abc.Iterator[PathScorer | PrefixPrefill] = self._scorers()
        if not can_roll_back and prompt.ends_with_text:
            self._remaining = itertools.chain([self._prefix_prefill()], self._remaining)
        self._next = next(self._remaining, None)
        self._first = self._next

    @property
    def priority(self) -> Priority:
        """Priority of the request: its order in the waiting queue, and its deadline."""
        return self.command.priority

    @property
    def is_finished(self) -> bool:
        """True if all paths are scored."""
        return self._next is None and all(consumer.is_finished for consumer in self.consumers)

    def take_consumers(self) -> list[PathScorer | PrefixPrefill]:
        """Returns the scorers that the scheduler gets now; none while the prompt is computed by a
        `PrefixPrefill`."""
        self.consumers = [consumer for consumer in self.consumers if not consumer.is_finished]
        taken: list[PathScorer | PrefixPrefill] = []
        while len(self.consumers) < self._width and self._next is not None:
            if any(isinstance(consumer, PrefixPrefill) for consumer in self.consumers):
                break
            taken.append(self._next)
            self.consumers.append(self._next)
            self._next = next(self._remaining, None)
        return taken

    def slot_assigned(self) -> SlotAssigned:
        """The event for the first slot of the request."""
        spans: list[MediaSpan] = media_spans(self._prompt.runs)
        for question in self._prompt.questions:
            spans += media_spans(question.runs)
        return SlotAssigned(
            id=self.address.id, prompt_tokens=self._prompt.prompt_tokens, media=spans
        )

    def final_events(self) -> list[LabelsScored]:
        """The answer, as one event."""
        logprobs = [
            question.tree.label_logprobs(logprobs)
            for question, logprobs in zip(self._prompt.questions, self._logprobs, strict=True)
        ]
        first = 0 if self._first is None else self._first.sequence.cached_tokens
        cached = min(first, len(self._prompt.tokens))
        return [LabelsScored(id=self.address.id, logprobs=logprobs, cached_tokens=cached)]

    def _prefix_prefill(self) -> PrefixPrefill:
        return PrefixPrefill(self._sequence(list(self._prompt.tokens), self._prompt.runs))

    def _scorers(self) -> abc.Iterator[PathScorer]:
        for question, logprobs in zip(self._prompt.questions, self._logprobs, strict=True):
            for path in question.tree.paths():
                before = [*self._prompt.tokens, *question.tokens]
                sequence = self._sequence(
                    [*before, *path.tokens],
                    (*self._prompt.runs, *question.runs),
                    logits_from=len(before) - 1 + path.first,
                    shared_tokens=len(self._prompt.tokens),
                )
                yield PathScorer(sequence, question.tree, path, logprobs)

    def _sequence(
        self,
        tokens: list[int],
        runs: tuple[Run, ...],
        *,
        logits_from: int | None = None,
        shared_tokens: int | None = None,
    ) -> Sequence:
        return Sequence(
            request=self.address,
            index=0,
            tokens=tokens,
            runs=runs,
            max_length=len(tokens),
            arrived_at=self.arrived_at,
            priority=self.priority,
            logits_from=logits_from,
            shared_tokens=shared_tokens,
        )


def _log_probabilities(row: Row, tokens: abc.Sequence[int]) -> list[float]:
    """Logprobs of `tokens`, from a row of logits: [vocab] float32."""
    total = log_sum_exp(row)
    if not np.isfinite(total):
        raise NoChoice(f"no label has a probability: the best logit is {float(row.max())}")
    return [float(row[token]) - total for token in tokens]
