"""What the engine asks of a model: the seam between what decides and what computes."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from llm_backend.engine.messages import ModelKind
from llm_backend.engine.prompt.media_runs import Projector, Run
from llm_backend.engine.scheduling.scheduler import ScheduledTokens

__all__ = ["DecodeError", "LoadError", "Model", "NoRoom", "PairFrame", "Vocabulary"]


class LoadError(Exception):
    """The model cannot be used; the message is one sentence that says why."""


class NoRoom(Exception):
    """There are not enough free cells for this pass; nothing was computed."""


class DecodeError(Exception):
    """The native code gave up on a pass; the cells that it touched are in an unknown state."""


@dataclass(frozen=True, kw_only=True)
class PairFrame:
    """The tokens before, between and after two texts that a model reads as a pair."""

    before: list[int]
    between: list[int]
    after: list[int]


class Vocabulary(Protocol):
    """Text to tokens and back."""

    @property
    def size(self) -> int:
        """How many tokens there are."""

    @property
    def infill(self) -> tuple[int, int, int] | None:
        """The tokens before a prefix, before a suffix and before what goes between them; None if
        there are none."""

    @property
    def pair_frame(self) -> PairFrame:
        """How a pair of texts is framed."""

    @property
    def end_tokens(self) -> frozenset[int]:
        """The tokens that end a generation."""

    @property
    def markers(self) -> frozenset[int]:
        """The tokens that are markup and no text: control tokens, `<tool_call>` and its like."""

    def prompt_tokens(self, text: str, *, parse_special: bool, add_bos: bool) -> list[int]:
        """The tokens of a prompt, after the begin token if it is wanted and not there already."""

    def tokenize(self, text: str, *, parse_special: bool, add_special: bool = False) -> list[int]:
        """The tokens of a text; `add_special` frames it with the tokens that the model expects."""

    def piece(self, token: int) -> bytes:
        """The bytes that a token adds to a text; control tokens add none."""

    def label(self, token: int) -> bytes:
        """The bytes by which a token is shown, control tokens too."""

    def text(self, tokens: list[int]) -> str:
        """The text of tokens, control tokens left out."""


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
        """Its tokens."""

    @property
    def copies_used(self) -> bool:
        """Whether `copy` costs by what the source holds, and not by all that it has room for."""

    @property
    def projector(self) -> Projector | None:
        """What it takes in more than text by, if it does."""

    def forward(self, work: list[ScheduledTokens]) -> NDArray[np.float32]:
        """Compute `work`, in the order of slots; one row of logits for each output position. The
        rows are a view that the next pass overwrites. Raises `NoRoom` or `DecodeError`."""

    def take_in(self, run: Run, *, slot: int, position: int, first: int, count: int) -> None:
        """Compute `count` embeddings of a run, from its `first` on, into the cells of a slot; the
        run begins at `position`. Raises `MediaError`, `NoRoom` or `DecodeError`."""

    def copy(self, source: int, target: int) -> None:
        """Give `target` all cells that `source` has, instead of its own."""

    def truncate(self, slot: int, position: int) -> bool:
        """Keep what a slot holds before a position. False: this state cannot be cut, it is as it
        was. To empty a slot never fails."""

    def end(self, slot: int) -> int:
        """The position behind the last one that a slot holds."""

    def state(self, slot: int) -> NDArray[np.uint8]:
        """What a slot holds, as bytes."""

    def restore(self, slot: int, state: NDArray[np.uint8], end: int) -> bool:
        """Give a slot what another one held up to the position `end`, instead of its own. False:
        these are not the bytes of that, or there is no room; the slot is empty."""

    def embed(self, inputs: list[list[int]]) -> NDArray[np.float32]:
        """One L2-normalised vector for each input; all inputs together fit one pass."""

    def rank(self, inputs: list[list[int]]) -> NDArray[np.float64]:
        """The relevance, from 0 to 1, of each input: a query and a document. All inputs together
        fit one pass."""
