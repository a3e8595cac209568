"""Fakes of a model and an outbox: deterministic, and strict about cells."""

import hashlib
import threading
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from llm_backend.engine.media_runs import MediaError, Part, Piece, Run, placeholder_tokens
from llm_backend.engine.messages import (
    Event,
    Generate,
    LoadModel,
    MediaItem,
    MediaKind,
    ModelKind,
    Sampling,
)
from llm_backend.engine.messages.address import Address
from llm_backend.engine.model import CellsExhausted, PairFrame
from llm_backend.engine.sampling import Sampler
from llm_backend.engine.scheduling.prompt_tokens import tokenize_prompt
from llm_backend.engine.sequence import ScheduledTokens

END = 0
LETTERS = "\0abcdefghijklmnopqrstuvwxyz .,!?\n"


class FakeVocabulary:
    """One token a letter; token 0 ends a generation."""

    size = len(LETTERS)
    end_tokens = frozenset({END})
    markers = frozenset({END})
    infill = None
    pair_frame = PairFrame(before=[END], between=[END, END], after=[END])

    def is_marker(self, token: int) -> bool:
        return token in self.markers

    def prompt_tokens(self, text: str, *, parse_special: bool, add_bos: bool) -> list[int]:
        return [LETTERS.index(letter) for letter in text]

    def tokenize(self, text: str, *, parse_special: bool, add_special: bool = False) -> list[int]:
        return [LETTERS.index(letter) for letter in text]

    def piece(self, token: int) -> bytes:
        return b"" if token == END else LETTERS[token].encode()

    def token_bytes(self, token: int) -> bytes:
        return LETTERS[token].encode()

    def text(self, tokens: list[int]) -> str:
        return b"".join(map(self.piece, tokens)).decode()


class SlowVocabulary(FakeVocabulary):
    """Grammars for it are compiled once `may_compile` is set, and not while it `is_broken`."""

    def __init__(self) -> None:
        self.may_compile = threading.Event()
        self.is_broken = False

    def token_bytes(self, token: int) -> bytes:
        assert self.may_compile.wait(30), "the test has not allowed compilation"
        if self.is_broken:
            raise RuntimeError("no token has a label")
        return super().token_bytes(token)


class FakeProjector:
    """An image is `width` embeddings between two tokens; they take half as many positions, and
    attention is not causal if the image is two pixels high. An image without height is
    refused."""

    media = frozenset({MediaKind.IMAGE})

    def pieces(self, media: MediaItem) -> list[Piece]:
        if not media.height:
            raise MediaError("The image has no height.")
        part = Part(
            count=media.width, positions=max(1, media.width // 2), is_non_causal=media.height == 2
        )
        return [[1], part, [2]]


def image(name: str = "cat", *, at: int = 1, width: int = 5, height: int = 1) -> MediaItem:
    """An image with this name; the one named `dragon` cannot be computed."""
    digest = name.encode()
    return MediaItem(
        at=at, medium=MediaKind.IMAGE, data=b"", digest=digest, width=width, height=height
    )


class FakeModel:
    """Logits are a function of the cells before them, so that any mistake with cells shows in the
    answer. `cells` None is enough for all sequences; `can_roll_back` False refuses to truncate a
    state. With a `memory` the logits depend on that many last tokens alone, so that text soon
    repeats."""

    rerank_template = None
    projector = FakeProjector()

    def __init__(
        self,
        *,
        slots: int = 4,
        context_tokens: int = 64,
        batch_tokens: int = 16,
        cells: int | None = None,
        can_roll_back: bool = True,
        memory: int | None = None,
        kind: ModelKind = ModelKind.CHAT,
    ) -> None:
        self.memory = memory
        self.kind = kind
        self.slots = slots
        self.context_tokens = context_tokens
        self.batch_tokens = batch_tokens
        self.can_roll_back = can_roll_back
        self.rollback_tokens = 0
        self.copies_only_used_cells = False
        self.vocabulary = FakeVocabulary()
        self.slot_tokens: list[list[int]] = [[] for _ in range(slots)]
        self.positions: list[list[int]] = [[] for _ in range(slots)]  # of what is held
        self.encoded_embeddings = 0  # embeddings
        self.computed_tokens = 0
        self.largest_pass = 0
        self.fails_next_pass = False  # raises at the next pass
        self.refuses_states = False
        self.saved_states = 0
        self._cells = cells

    def forward(self, scheduled: list[ScheduledTokens]) -> NDArray[np.float32]:
        if self.fails_next_pass:
            self.fails_next_pass = False
            raise RuntimeError("the pass went wrong")
        total = sum(len(item.tokens) for item in scheduled)
        if self._cells is not None and sum(map(len, self.slot_tokens)) + total > self._cells:
            raise CellsExhausted
        slots = [item.sequence.slot or 0 for item in scheduled]
        assert slots == sorted(slots)
        rows = [row for item in scheduled for row in self._compute(item)]
        self.computed_tokens += total
        self.largest_pass = max(self.largest_pass, total)
        return np.array(rows, dtype=np.float32).reshape(len(rows), self.vocabulary.size)

    def encode_media(self, run: Run, *, slot: int, position: int, first: int, count: int) -> None:
        if run.media.digest == b"dragon":
            raise MediaError("There are no dragons.")
        if self._cells is not None and sum(map(len, self.slot_tokens)) + count > self._cells:
            raise CellsExhausted
        assert count == run.part.count if run.part.is_non_causal else 0 < count <= self.batch_tokens
        cells, positions = self.slot_tokens[slot], self.positions[slot]
        assert len(cells) == run.start + first, "the cells are not the sequence's"
        assert not positions or positions[-1] == (position if first else position - 1)
        cells += placeholder_tokens(run.media, run.part_index, run.part.count)[
            first : first + count
        ]
        positions += [position] * count
        self.encoded_embeddings += count

    def copy(self, source: int, target: int) -> None:
        self.slot_tokens[target] = list(self.slot_tokens[source])
        self.positions[target] = list(self.positions[source])

    def truncate(self, slot: int, position: int) -> bool:
        positions = self.positions[slot]
        kept = sum(kept_position < position for kept_position in positions)
        if not self.can_roll_back and 0 < kept < len(positions):
            return False
        del self.slot_tokens[slot][kept:], positions[kept:]
        return True

    def end(self, slot: int) -> int:
        return self.positions[slot][-1] + 1 if self.slot_tokens[slot] else 0

    def state_bytes(self, slot: int) -> int:
        return 8 * len(self.slot_tokens[slot])

    def state(self, slot: int) -> NDArray[np.uint8]:
        self.saved_states += 1
        return np.array(self.slot_tokens[slot], dtype=np.int64).view(np.uint8)

    def restore(self, slot: int, state: NDArray[np.uint8], end: int) -> bool:
        self.truncate(slot, 0)
        if self.refuses_states:
            return False
        self.slot_tokens[slot] = state.view(np.int64).tolist()
        self.positions[slot] = list(range(end))
        assert len(self.slot_tokens[slot]) == end <= self.context_tokens
        return True

    def embed(self, inputs: list[list[int]]) -> NDArray[np.float32]:
        self.largest_pass = max(self.largest_pass, sum(map(len, inputs)))
        return np.array([[sum(tokens), len(tokens)] for tokens in inputs], dtype=np.float32)

    def rank(self, inputs: list[list[int]]) -> NDArray[np.float64]:
        self.largest_pass = max(self.largest_pass, sum(map(len, inputs)))
        return np.array([1 / len(tokens) for tokens in inputs])

    def _compute(self, item: ScheduledTokens) -> list[NDArray[np.float32]]:
        sequence = item.sequence
        assert sequence.slot is not None
        cells = self.slot_tokens[sequence.slot]
        assert cells == sequence.tokens[: sequence.computed], "the cells are not the sequence's"
        assert item.count > 0
        rows = []
        wanted = set(item.output_positions)
        assert not item.draft or item.needs_sampling
        for position, token in enumerate(item.tokens, start=sequence.computed):
            assert token >= 0, "an image is no token"
            cells.append(token)
            self.positions[sequence.slot].append(sequence.position(position))
            if position in wanted:
                rows.append(logits_after(cells[-self.memory :] if self.memory else cells))
        assert len(cells) <= self.context_tokens
        return rows


def logits_after(tokens: list[int]) -> NDArray[np.float32]:
    """Logits of the fake model after these tokens: [vocab] float32."""
    seed = int.from_bytes(hashlib.blake2b(repr(tokens).encode(), digest_size=8).digest())
    return np.random.default_rng(seed).standard_normal(len(LETTERS)).astype(np.float32) * 2


def greedy(prompt: str, max_tokens: int, memory: int | None = None) -> str:
    """Greedy text of the fake model, computed alone."""
    tokens = [LETTERS.index(letter) for letter in prompt]
    text = ""
    for _ in range(max_tokens):
        token = int(logits_after(tokens[-memory:] if memory else tokens).argmax())
        if token == END:
            break
        tokens.append(token)
        text += LETTERS[token]
    return text


def expected_text(command: Generate, index: int, memory: int | None = None) -> str:
    """Answer `index` to a command, sampled token by token and computed alone."""
    tokens = tokenize_prompt(command.prompt, command, FakeVocabulary(), FakeProjector()).tokens
    sampler = Sampler(command.sampling, index=index, prompt=tokens, token_bytes=bytes)
    text = ""
    for _ in range(command.max_tokens):
        token = sampler.choose(logits_after(tokens[-memory:] if memory else tokens)).token
        if token == END:
            break
        tokens.append(token)
        text += LETTERS[token]
    return text


def generate(prompt: str | list[int] = "abc", **fields: object) -> Generate:
    """A greedy request; `id` is "1" unless given."""
    defaults = {"id": "1", "max_tokens": 8, "sampling": Sampling(temperature=0)}
    return Generate(prompt=prompt, **{**defaults, **fields})


class Outbox:
    """Records published events by the id of the request, and `is_decode_only` of each pass."""

    def __init__(self) -> None:
        self.events: dict[str, list[Event]] = {}
        self.passes: list[bool] = []

    def publish(self, address: Address, event: Event) -> None:
        self.events.setdefault(address.id, []).append(event)

    def begin_pass(self, *, is_decode_only: bool) -> None:
        self.passes.append(is_decode_only)

    def end_pass(self) -> None:
        pass

    def send(self) -> None:
        pass


def load_command(**fields: object) -> LoadModel:
    """A start command with limits that no test reaches."""
    defaults = {
        "model_path": Path("none.gguf"),
        "slots": 4,
        "batch_tokens": 16,
        "logit_rows": 4,
        "draft_tokens": 0,
        "threads": 1,
        "cache_type": "f32",
        "flash_attention": False,
        "queue_limit": 1000,
        "batch_queue_limit": 1000,
        "choices_limit": 8,
        "stops_limit": 4,
        "inputs_limit": 16,
        "labels_limit": 64,
        "prefix_ram_limit_bytes": 0,
    }
    return LoadModel(**{**defaults, **fields})
