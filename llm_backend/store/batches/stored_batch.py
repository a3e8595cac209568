"""Values of batches and of the answers to their lines."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from llm_backend.json_types import JsonMapping
from llm_backend.store.files.stored_file import StoredFile
from llm_backend.store.tables.batches import BATCH_ENDS

BATCH, BATCH_LINES = "batch", "batch_lines"  # kinds of jobs; their subject is the batch's id


class BatchStatus(StrEnum):
    """State of a batch."""

    VALIDATING = "validating"
    FAILED = "failed"
    IN_PROGRESS = "in_progress"
    FINALIZING = "finalizing"
    COMPLETED = "completed"
    EXPIRED = "expired"
    CANCELLING = "cancelling"
    CANCELLED = "cancelled"

    @property
    def is_end(self) -> bool:
        """True if the batch has ended."""
        return self.value in BATCH_ENDS


@dataclass(frozen=True, kw_only=True)
class TokenCounts:
    """Tokens of one answer, or sums over all answers."""

    input_tokens: int = 0
    cached_tokens: int = 0  # of the input
    output_tokens: int = 0
    reasoning_tokens: int = 0  # of the output


@dataclass(frozen=True, kw_only=True)
class StoredBatch:
    """A batch. `times` has the time at which each state began, by its name in the document (such as
    `in_progress_at`). `errors` of a batch that has failed, or will, are in the document's form."""

    id: str
    created_at: int  # unix seconds
    endpoint: str
    input_file_id: str
    completion_window: str
    expires_at: int  # unix seconds
    metadata: Mapping[str, str] | None = None
    output_lifetime_s: int | None = None
    key_id: str | None = None
    owner: str | None = None
    status: BatchStatus = BatchStatus.VALIDATING
    times: Mapping[str, int] = field(default_factory=dict)
    errors: Sequence[JsonMapping] = ()
    model: str | None = None
    total: int = 0
    completed: int = 0
    failed: int = 0
    usage: TokenCounts | None = None
    output_file_id: str | None = None
    error_file_id: str | None = None


@dataclass(frozen=True, kw_only=True)
class Lines:
    """A range of lines of an input file: its bytes from `start` until before `end`, and the numbers
    of its first and last line."""

    start: int
    end: int
    first_line: int
    last_line: int


@dataclass(frozen=True, kw_only=True)
class LineResult:
    """The answer to one line, as one line of the output file or of the error file."""

    line: int
    is_error: bool
    text: str
    tokens: TokenCounts = TokenCounts()


@dataclass(frozen=True, kw_only=True)
class BatchEnd:
    """End of a batch; `output` or `error` is None if that file would be empty."""

    status: BatchStatus
    completed: int
    failed: int
    output: StoredFile | None
    error: StoredFile | None
