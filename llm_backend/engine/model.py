"""Interface between the engine and a model: the protocols `Model` and `Vocabulary`."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from llm_backend.engine.media_runs import Projector, Run
from llm_backend.engine.messages import ModelKind
from llm_backend.engine.sequence import ScheduledTokens


class LoadError(Exception):
    """The model cannot be loaded; the message is one sentence that says why."""


class OutOfMemory(LoadError):
    """The model cannot be loaded, because its weights or cells need more memory than is free."""


class CellsExhausted(Exception):
    """There are not enough free KV cells for this pass; nothing was computed."""


class DecodeError(Exception):
    """A pass failed in the native code; the cells of its sequences are in an unknown state."""


@dataclass(frozen=True, kw_only=True)
class PairFrame:
    """Tokens before, between and after the two texts of a pair, a query and a document."""

    before: list[int]
    between: list[int]
    after: list[int]


class Vocabulary(Protocol):
    """Tokenizer: text to tokens and back."""

    @property
    def size(self) -> int:
        """Number of tokens in the vocabulary."""

    @property
    def infill(self) -> tuple[int, int, int] | None:
        """Infill tokens (fill in the middle): before a prefix, before a suffix and before the
        text between them; None if there are none."""

    @property
    def pair_frame(self) -> PairFrame:
        """Tokens around a pair of texts."""

    @property
    def end_tokens(self) -> frozenset[int]:
        """The tokens that end a generation (EOS, end of turn)."""

    @property
    def markers(self) -> frozenset[int]:
        """Markup tokens: control tokens, and tokens like `<tool_call>`."""

    def is_marker(self, token: int) -> bool:
        """True for one of the `markers`; it inspects this token only."""

    def prompt_tokens(self, text: str, *, parse_special: bool, add_bos: bool) -> list[int]:
        """Tokenizes a prompt. With `add_bos`, the begin token precedes it unless it is there."""

    def tokenize(self, text: str, *, parse_special: bool, add_special: bool = False) -> list[int]:
        """Tokenizes a text; `add_special` adds the tokens that the model expects around it."""

    def piece(self, token: int) -> bytes:
        """Returns the bytes that a token adds to a text; control tokens add none."""

    def token_bytes(self, token: int) -> bytes:
        """Returns the bytes of a token as text; a control token has its name."""

    def text(self, tokens: list[int]) -> str:
        """Returns the text of tokens; control tokens have none."""


class Model(Protocol):
    """A loaded model with `slots` for sequences of up to `context_tokens`."""

    slots: int
    context_tokens: int
    batch_tokens: int
    can_roll_back: bool
    kind: ModelKind
    rerank_template: str | None  # `{query}` and `{document}` stand for the texts

    @property
    def vocabulary(self) -> Vocabulary:
        """The model's vocabulary."""

    @property
    def rollback_tokens(self) -> int:
        """Number of a slot's last tokens that `truncate` can remove although the model lacks
        `can_roll_back`: at most those of its last pass."""

    @property
    def copies_only_used_cells(self) -> bool:
        """True if the cost of `copy` depends on the used cells of the source, not on all its
        cells."""

    @property
    def projector(self) -> Projector | None:
        """The projector that encodes media for the model, if there is one."""

    def forward(self, scheduled: list[ScheduledTokens]) -> NDArray[np.float32]:
        """Computes `scheduled`, in the order of slots. Returns logits: [output positions, vocab]
        float32, a view that the next pass overwrites. Raises `CellsExhausted` or `DecodeError`."""

    def encode_media(self, run: Run, *, slot: int, position: int, first: int, count: int) -> None:
        """Computes `count` embeddings of a media run, from its `first` on, into the cells of a
        slot; the run begins at `position`. Raises `MediaError`, `CellsExhausted` or
        `DecodeError`."""

    def copy(self, source: int, target: int) -> None:
        """Replaces the cells of slot `target` by a copy of the cells of `source`."""

    def truncate(self, slot: int, position: int) -> bool:
        """Removes the cells of a slot from `position` on. Returns False, and changes nothing, if
        this state cannot be truncated. Position 0 always succeeds."""

    def end(self, slot: int) -> int:
        """Returns the position after a slot's last cell."""

    def state_bytes(self, slot: int) -> int:
        """Returns the size of the array that `state` would return."""

    def state(self, slot: int) -> NDArray[np.uint8]:
        """Returns a copy of the state of a slot's cells: [bytes] uint8."""

    def restore(self, slot: int, state: NDArray[np.uint8], end: int) -> bool:
        """Replaces the cells of a slot by a saved `state` ([bytes] uint8) that ends at position
        `end`. Returns False, and leaves the slot empty, if the bytes are invalid or cells are
        exhausted."""

    def embed(self, inputs: list[list[int]]) -> NDArray[np.float32]:
        """Returns L2-normalised embeddings: [inputs, dimensions] float32. All inputs together must
        fit one pass."""

    def rank(self, inputs: list[list[int]]) -> NDArray[np.float64]:
        """Returns the relevance of each input, a query with a document, from 0 to 1: [inputs]
        float64. All inputs together must fit one pass."""
