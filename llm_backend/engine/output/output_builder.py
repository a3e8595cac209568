"""Builds one answer: turns logits into tokens and deltas, and finds its finish reason."""

from collections import abc
from functools import cached_property
from itertools import takewhile

import msgspec
import numpy as np
from numpy.typing import NDArray

from llm_backend.engine.messages import Delta, FinishReason, Generate, TokenLogprob, join_deltas
from llm_backend.engine.model import Vocabulary
from llm_backend.engine.output.text_stream import ReleasedText, TextStream
from llm_backend.engine.sampling import Choice, Row, Sampler, log_probabilities
from llm_backend.engine.sampling.constraint import Constraint
from llm_backend.engine.sequence import Sequence
from llm_backend.engine.speculation.prompt_lookup import SharedPromptLookup
from llm_backend.engine.speculation.prompt_lookup_drafter import LookupRates, PromptLookupDrafter


class OutputBuilder:
    """Builds choice `sequence.index` of a command. Its deltas are returned one by one; those of
    a `best_of` answer are joined into `buffered` instead."""

    def __init__(
        self,
        command: Generate,
        sequence: Sequence,
        vocabulary: Vocabulary,
        prediction: abc.Sequence[int] = (),
        prompt_lookup: SharedPromptLookup | None = None,
    ) -> None:
        self.sequence = sequence
        self.prediction = prediction
        self._command = command
        self._vocabulary = vocabulary
        self._is_buffered = command.answer_count > command.n
        self.buffered: Delta | None = None
        self._text = TextStream(command.stop)
        ignored = vocabulary.end_tokens if command.ignore_eos else frozenset[int]()
        self._end_tokens = frozenset(command.stop_token_ids) | (vocabulary.end_tokens - ignored)
        self._suppressed = sorted(ignored - self._end_tokens)
        self._delayed = sorted(self._end_tokens) if command.min_tokens else []
        self.constraint: Constraint | None = None
        self._prompt_lookup = prompt_lookup or SharedPromptLookup()
        self._lookup_drafter: PromptLookupDrafter | None = None
        self._draft: list[int] = []  # drafted tokens, the next one last
        self._drafted_tokens = 0
        self._accepted_tokens = 0
        self._prompt_logprobs: list[TokenLogprob] = []
        self._echo_is_due = command.echo
        self._logprob_sum = 0.0
        self.is_finished = False

    @property
    def quality(self) -> float:
        """Mean logprob of the generated tokens, by which `best_of` ranks."""
        return self._logprob_sum / max(1, self.sequence.generated)

    @cached_property
    def _sampler(self) -> Sampler:
        """The sampler, created by the first sampling step: its penalties read the whole prompt, and
        many answers may wait for slots."""
        return Sampler(
            self._command.sampling,
            index=self.sequence.index,
            prompt=_text_tokens(self.sequence),
            token_bytes=self._vocabulary.token_bytes,
            suppressed=self._suppressed,
            delayed=self._delayed,
            min_tokens=self._command.min_tokens,
            wants_logprobs=self._is_buffered,
        )

    def add_prompt_logprob(self, row: Row, position: int) -> None:
        """Adds the prompt logprob of the next token, from the logits of a prompt position:
        [vocab] float32."""
        if position != max(0, len(self._prompt_logprobs) - 1):
            return  # computed again after a preemption
        if not self._prompt_logprobs:
            self._prompt_logprobs.append(self._logprob(Choice(token=self.sequence.tokens[0])))
        token = self.sequence.tokens[position + 1]
        choice = log_probabilities(row, token, self._command.sampling.logprobs or 0)
        self._prompt_logprobs.append(self._logprob(choice))

    def lookup_drafter(self, rates: LookupRates) -> PromptLookupDrafter:
        """Returns the prompt lookup of the answer's next tokens, which the first call creates."""
        if self._lookup_drafter is None:
            length = max(0, self.sequence.prompt_tokens)
            prompt, generated = self.sequence.tokens[:length], self.sequence.tokens[length:]
            lookup = self._prompt_lookup.take(prompt, self.prediction)
            self._lookup_drafter = PromptLookupDrafter(lookup, rates)
            for token in generated:
                self._lookup_drafter.push(token)
        return self._lookup_drafter

    def advance_with_draft(
        self, rows: abc.Sequence[Row], draft: abc.Sequence[int]
    ) -> tuple[Delta | None, int]:
        """Runs sampling steps until one chooses another token than `draft` has, or the answer ends.
        `rows` are the logits of the sequence's last token and of each draft token. Every token is
        chosen as it would be without a draft. Returns the delta, if any, and the number of accepted
        draft tokens. An answer that is full already is ended."""
        if self.sequence.is_full:
            return self.end_at_prompt(), 0
        length, accepted_before = len(self.sequence.tokens), self._accepted_tokens
        self._draft = list(reversed(draft))
        self._drafted_tokens += len(draft)
        delta = self.advance(rows[0])
        while not self.is_finished:
            appended = len(self.sequence.tokens) - length
            if appended != self._accepted_tokens - accepted_before:
                break
            delta = _join_deltas_if_any(delta, self.advance(rows[appended]))
        return delta, self._accepted_tokens - accepted_before

    def advance(self, row: Row) -> Delta | None:
        """Runs one sampling step, and appends the chosen token and those that the grammar forces.
        Returns the delta, if any."""
        allowed = None if self.constraint is None else self._token_mask(self.constraint)
        if allowed is not None and not allowed.any():
            return self._finish(self._text.finish(), FinishReason.STOP)
        choice = self._sampler.choose(row, allowed)
        if choice.token in self._end_tokens:
            return self._finish(self._text.finish(), FinishReason.STOP)
        released = self._append(choice)
        for token in self._fast_forward_tokens():
            if self._finish_reason(released) is not None:
                break
            self._sampler.accept(token)
            released = _join_released(released, self._append(Choice(token=token)))
        reason = self._finish_reason(released)
        if reason is not None:
            withheld = ReleasedText() if self._text.is_stopped else self._text.finish()
            return self._finish(_join_released(released, withheld), reason)
        if released.text or released.logprobs or self._echo_is_due:
            return self._delta(released)
        return None

    def end_at_prompt(self) -> Delta | None:
        """Ends an answer without generated tokens, after the prompt's echo if that is wanted."""
        return self._finish(ReleasedText(), FinishReason.LENGTH)

    def _token_mask(self, constraint: Constraint) -> NDArray[np.bool_]:
        """Returns the mask of the tokens that the grammar allows, except end tokens that are
        ignored, or come before `min_tokens`: [vocab] bool."""
        allowed = constraint.mask()
        allowed[self._suppressed] = False
        if self.sequence.generated < self._command.min_tokens:
            allowed[self._delayed] = False
        return allowed

    def _append(self, choice: Choice) -> ReleasedText:
        """Appends a token; returns the text that it releases."""
        self.sequence.append(choice.token)
        self._record_token(choice.token)
        if self.constraint is not None:
            self.constraint.accept(choice.token)
        self._logprob_sum += choice.logprob or 0.0
        wants_logprobs = self._command.sampling.logprobs is not None
        logprob = self._logprob(choice) if wants_logprobs else None
        may_stop = self.sequence.generated > self._command.min_tokens
        return self._text.push(self._piece(choice.token), logprob, may_stop=may_stop)

    def _piece(self, token: int) -> bytes:
        is_visible = token in self._command.visible_tokens
        return self._vocabulary.token_bytes(token) if is_visible else self._vocabulary.piece(token)

    def _record_token(self, token: int) -> None:
        """Counts a chosen token that the draft has next, else drops the draft; adds the token to
        the prompt lookup."""
        if self._draft and self._draft[-1] == token:
            self._draft.pop()
            self._accepted_tokens += 1
        else:
            self._draft = []
        if self._lookup_drafter is not None:
            self._lookup_drafter.push(token)

    def _fast_forward_tokens(self) -> list[int]:
        """Returns the next tokens that the grammar forces, unless their logprobs are needed."""
        needs_logprobs = self._is_buffered or self._command.sampling.logprobs is not None
        if self.constraint is None or needs_logprobs:
            return []
        forced = self.constraint.fast_forward_tokens()
        end_tokens = self._end_tokens | self._vocabulary.end_tokens
        return list(takewhile(lambda token: token not in end_tokens, forced))

    def _finish_reason(self, released: ReleasedText) -> FinishReason | None:
        """Returns the finish reason if the answer ends after this text, else None."""
        if released.stop is not None:
            return FinishReason.STOP
        if self.constraint is not None and self.constraint.is_complete:
            return FinishReason.STOP
        return FinishReason.LENGTH if self.sequence.is_full else None

    def _finish(self, released: ReleasedText, reason: FinishReason) -> Delta | None:
        self.is_finished = True
        delta = self._delta(released, reason)
        self._lookup_drafter = None  # it is large, and the request's other answers may take long
        return delta

    def _delta(self, released: ReleasedText, reason: FinishReason | None = None) -> Delta | None:
        text, logprobs = released.text, released.logprobs
        if self._echo_is_due:
            self._echo_is_due = False
            text = self._prompt_text() + text
            logprobs = self._echoed_logprobs() + logprobs
        lookup = self._lookup_drafter
        delta = Delta(
            id=self._command.id,
            index=self.sequence.index,
            text=text,
            completion_tokens=self.sequence.generated,
            cached_tokens=self.sequence.cached_tokens,
            drafted_tokens=self._drafted_tokens,
            accepted_tokens=self._accepted_tokens,
            predicted_tokens=0 if lookup is None else lookup.predicted_tokens,
            logprobs=logprobs,
            finish_reason=reason,
            stop_sequence=released.stop,
        )
        if not self._is_buffered:
            return delta
        self.buffered = delta if self.buffered is None else join_deltas(self.buffered, delta)
        return None

    def _prompt_text(self) -> str:
        prompt = self._command.prompt
        return prompt if isinstance(prompt, str) else self._vocabulary.text(prompt)

    def _echoed_logprobs(self) -> list[TokenLogprob]:
        if self._command.sampling.logprobs is None:
            return []
        # a prompt of one token, which nothing precedes, has none
        echoed = self._prompt_logprobs or [self._logprob(Choice(token=self.sequence.tokens[0]))]
        prompt = self.sequence.tokens[: self.sequence.prompt_tokens]
        if self._vocabulary.text(prompt) == f" {self._prompt_text()}":
            at = next(at for at, one in enumerate(echoed) if not one.omitted_bytes)
            echoed[at] = msgspec.structs.replace(echoed[at], omitted_bytes=1)
        return echoed

    def _logprob(self, choice: Choice) -> TokenLogprob:
        token_bytes = self._vocabulary.token_bytes
        named = token_bytes(choice.token)
        return TokenLogprob(
            token=choice.token,
            bytes=named,
            logprob=choice.logprob,
            omitted_bytes=0 if self._piece(choice.token) else len(named),
            top=[
                TokenLogprob(token=top.token, bytes=token_bytes(top.token), logprob=top.logprob)
                for top in choice.top
            ],
        )


def _text_tokens(sequence: Sequence) -> abc.Sequence[int]:
    """Returns the tokens of a sequence without those of images and audio."""
    if not sequence.runs:
        return sequence.tokens
    return [token for token in sequence.tokens if token >= 0]


def _join_deltas_if_any(earlier: Delta | None, later: Delta | None) -> Delta | None:
    return join_deltas(earlier, later) if earlier and later else later or earlier


def _join_released(first: ReleasedText, last: ReleasedText) -> ReleasedText:
    return ReleasedText(
        text=first.text + last.text,
        logprobs=first.logprobs + last.logprobs,
        stop=first.stop or last.stop,
    )
