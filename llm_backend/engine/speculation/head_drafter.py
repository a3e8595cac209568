"""Draft head: a layer of the model's own file that drafts (multi-token prediction, MTP). It
predicts a token from the token before it and the model's hidden state at the token before that.

The hidden states come from the model's passes. The head has KV cells of its own, so it must compute
every token of a sequence, too: it *follows* the sequence. It follows a prompt in passes of its own,
and a decoding sequence only when it drafts. Then it first computes the tokens that were generated
since its last draft, and continues from its own hidden states. Cells computed from its own hidden
states are truncated before its next pass. An unknown hidden state, such as that before the first
token, is replaced by zeros.
"""

import time
from collections import abc
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from llm_backend.engine.batch import BatchChunk
from llm_backend.engine.kv_cache.common_prefix import common_prefix_length
from llm_backend.engine.sequence import ScheduledTokens, Sequence
from llm_backend.engine.speculation.acceptance_rate import AcceptanceRate
from llm_backend.engine.speculation.draft_source import DraftSource
from llm_backend.engine.speculation.hidden_state_buffer import Hidden, HiddenStateBuffer

_PENDING_TOKENS = 32  # tokens that the head may lag behind the model until it drafts


class DraftHead(Protocol):
    """The head of a model, with as many slots of cells as the model."""

    context_tokens: int
    batch_tokens: int
    hidden_size: int
    first_position: int  # the first one that it computes
    end_tokens: frozenset[int]

    def hidden_states(self, count: int) -> Hidden:
        """Returns the hidden states of the `count` tokens of the model's last pass, a view."""

    def forward(
        self, chunks: list[BatchChunk], hidden: Hidden
    ) -> tuple[NDArray[np.float32], Hidden]:
        """Computes `chunks`, with the hidden state before each of their tokens. Returns logits and
        hidden states of the outputs. Raises `CellsExhausted` or `DecodeError`."""

    def copy(self, source: int, target: int) -> None:
        """Replaces the cells of slot `target` by a copy of the cells of `source`."""

    def truncate(self, slot: int, position: int) -> bool:
        """Keeps the cells of a slot before `position`. False if they cannot be truncated."""


class HeadDrafter(DraftSource):
    """Drafts tokens with `head`."""

    def __init__(self, head: DraftHead, clock: abc.Callable[[], float] = time.monotonic) -> None:
        super().__init__(clock)
        self._head = head
        self._buffers: dict[int, HiddenStateBuffer] = {}  # by slot

    def record_hidden_states(self, scheduled: list[ScheduledTokens]) -> None:
        """Records the hidden states of the model's pass that has just computed `scheduled`."""
        if self._is_broken:
            return
        with self._drafting():
            self._follow_prompts(self._record_all(scheduled))

    def draft_limit(self, sequence: Sequence) -> int:
        """Returns the maximum number of tokens to draft for a sequence; 0 if it has media, or if
        the hidden state before its last token is unknown."""
        buffer = self._buffers.get(sequence.assigned_slot)
        if self._is_broken or buffer is None or buffer.source is not sequence:
            return 0
        last = len(sequence.tokens) - 1
        if buffer.hidden_begin + len(buffer.hidden) < last or last < buffer.first_position:
            return 0
        return max(0, self._head.context_tokens - len(sequence.tokens))

    def follow(self, sequence: Sequence) -> tuple[float, int]:
        """Compares the last draft of a sequence with its tokens. Returns the acceptance rate of
        drafted tokens, and the number of tokens that the head must compute before it can draft."""
        buffer = self._buffers.get(sequence.assigned_slot)
        if buffer is None or buffer.source is not sequence:
            return self._rate.value, len(sequence.tokens)
        buffer.rate.count_draft(buffer.draft, sequence.tokens[buffer.drafted_at :])
        buffer.draft = []
        return buffer.rate.value, len(sequence.tokens) - min(
            buffer.next_token, len(sequence.tokens) - 1
        )

    def copy(self, source: int, target: int) -> None:
        """Copies the cells of slot `source` to slot `target`."""
        buffer = self._buffers.get(source)
        if buffer is None or self._is_broken:
            self._buffers.pop(target, None)
            return
        self._head.copy(source, target)
        self._buffers[target] = replace(buffer, draft=[], drafted_at=0)

    def clear(self, slot: int) -> None:
        """Empties a slot whose cells may be wrong."""
        self._head.truncate(slot, 0)
        self._buffers.pop(slot, None)

    def _record_all(self, scheduled: list[ScheduledTokens]) -> "list[_SequencePiece]":
        """Records the hidden states of all sequences; returns the tokens that the head must follow
        now."""
        lengths = [item.count + len(item.draft) for item in scheduled]
        hidden = self._head.hidden_states(sum(lengths))
        pieces, at = [], 0
        for item, length in zip(scheduled, lengths, strict=True):
            piece = self._record(item, hidden[at : at + length])
            pieces += [] if piece is None else [piece]
            at += length
        return pieces

    def _record(self, item: ScheduledTokens, hidden: Hidden) -> "_SequencePiece | None":
        """Records the hidden states of a sequence; returns tokens that the head must follow now."""
        sequence, slot = item.sequence, item.sequence.assigned_slot
        if sequence.runs:
            self._buffers.pop(slot, None)
            return None
        buffer, start = self._buffer_of(sequence), sequence.computed
        if start + 1 < buffer.computed:
            buffer.computed = start
        buffer.truncate(start)
        if buffer.hidden_begin + len(buffer.hidden) < start:
            buffer.hidden_begin, buffer.hidden = start, hidden.copy()
        else:
            buffer.hidden = np.concatenate((buffer.hidden, hidden))
        end = start + item.count
        if end - buffer.next_token <= _PENDING_TOKENS:
            return None
        return _SequencePiece(
            buffer=buffer,
            slot=slot,
            start=buffer.next_token,
            tokens=sequence.tokens[buffer.next_token : end],
        )

    def _buffer_of(self, sequence: Sequence) -> HiddenStateBuffer:
        """Returns the buffer of a sequence; a new one keeps the common prefix with the sequence
        that had its slot before."""
        slot = sequence.assigned_slot
        buffer = self._buffers.get(slot)
        if buffer is not None and buffer.source is sequence:
            return buffer
        found = HiddenStateBuffer(
            source=sequence,
            first_position=self._head.first_position,
            hidden_begin=0,
            hidden=np.empty((0, self._head.hidden_size), dtype=np.float32),
            rate=AcceptanceRate(self._rate),
        )
        if buffer is not None:
            same = common_prefix_length(buffer.source.tokens, sequence.tokens)
            buffer.truncate(same)
            found.hidden_begin, found.hidden = buffer.hidden_begin, buffer.hidden
            found.computed = min(buffer.computed, same)
        self._buffers[slot] = found
        return found

    def _fitting(self, counts: abc.Mapping[Sequence, int]) -> "dict[_SequencePiece, int]":
        """Returns the uncomputed tokens of as many sequences as fit into a pass, with the number of
        tokens to draft after them."""
        pieces, budget = {}, self._head.batch_tokens
        for sequence, count in counts.items():
            buffer, end = self._buffers[sequence.assigned_slot], len(sequence.tokens)
            buffer.truncate(end - 1)
            start = min(buffer.next_token, end - 1)
            buffer.drafted_at = end
            if end - start <= budget:
                budget -= end - start
                tokens = sequence.tokens[start:]
                piece = _SequencePiece(
                    buffer=buffer, slot=sequence.assigned_slot, start=start, tokens=tokens
                )
                pieces[piece] = count
        return pieces

    def _draft(self, counts: abc.Mapping[Sequence, int]) -> dict[Sequence, tuple[int, ...]]:
        self._draft_pieces(self._fitting(counts))
        return {sequence: tuple(self._buffers[sequence.assigned_slot].draft) for sequence in counts}

    def _draft_pieces(self, pieces: "dict[_SequencePiece, int]") -> None:
        """Computes missing tokens in one pass, then drafts one token of each sequence in every
        further pass."""
        drafting = sorted(pieces, key=lambda piece: piece.slot)
        if not drafting:
            return
        best, hidden = self._forward(drafting, has_output=True)
        position = 0
        while drafting:
            unfinished, rows = [], []
            for index, piece in enumerate(drafting):
                token = best[index]
                piece.buffer.draft.append(token)
                if token not in self._head.end_tokens and len(piece.buffer.draft) < pieces[piece]:
                    unfinished.append(piece)
                    rows.append(index)
            drafting = unfinished
            if drafting:
                chunks = [
                    BatchChunk(
                        slot=piece.slot,
                        position=piece.end + position,
                        tokens=[piece.buffer.draft[-1]],
                        outputs=[0],
                    )
                    for piece in drafting
                ]
                best, hidden = self._compute(chunks, hidden[rows])
                position += 1

    def _follow_prompts(self, pieces: "list[_SequencePiece]") -> None:
        """Computes the tokens of prompts, as many together as fit into a pass."""
        size = self._head.batch_tokens
        ready: list[_SequencePiece] = []
        for piece in sorted(pieces, key=lambda one: one.slot):
            for part in piece.split(size):
                if sum(len(one.tokens) for one in ready) + len(part.tokens) > size or (
                    ready and ready[-1].slot == part.slot
                ):
                    self._forward(ready, has_output=False)
                    ready = []
                ready.append(part)
        if ready:
            self._forward(ready, has_output=False)

    def _forward(
        self, pieces: "abc.Sequence[_SequencePiece]", *, has_output: bool
    ) -> tuple[list[int], Hidden]:
        """Computes pieces by the model's hidden states. If it `has_output`, returns the likeliest
        token after each piece, and its hidden state."""
        for piece in pieces:
            kept = piece.start if piece.start <= piece.buffer.computed else 0
            if not self._head.truncate(piece.slot, kept):
                self._head.truncate(piece.slot, 0)
        hidden = np.concatenate([one.buffer.hidden_before(one.start, one.end) for one in pieces])
        chunks = [
            BatchChunk(
                slot=piece.slot,
                position=piece.start,
                tokens=piece.tokens,
                outputs=[len(piece.tokens) - 1] if has_output else [],
            )
            for piece in pieces
        ]
        results = self._compute(chunks, hidden)
        for piece in pieces:
            piece.buffer.forget(piece.end)
        return results

    def _compute(self, chunks: list[BatchChunk], hidden: Hidden) -> tuple[list[int], Hidden]:
        started_at = self._clock()
        rows, states = self._head.forward(chunks, hidden)
        best = rows.argmax(axis=1).tolist() if len(rows) else []
        tokens = sum(len(chunk.tokens) for chunk in chunks)
        self._costs.record_pass(tokens, self._clock() - started_at)
        return best, states.copy()


@dataclass(frozen=True, kw_only=True, eq=False)
class _SequencePiece:
    """Consecutive tokens of a sequence, from `start` on, that the head computes."""

    buffer: HiddenStateBuffer
    slot: int
    start: int
    tokens: list[int]

    @property
    def end(self) -> int:
        return self.start + len(self.tokens)

    def split(self, size: int) -> "list[_SequencePiece]":
        """Returns the piece in parts of at most `size` tokens."""
        return [
            replace(self, start=self.start + at, tokens=self.tokens[at : at + size])
            for at in range(0, len(self.tokens), size)
        ]
