"""Messages between the API process and the worker process: frozen structs, framed as msgpack.

Commands go to the worker (`Start` first, then `Generate`, `ScoreLabels`, `Embed`, `Rank`,
`Transcribe`, `Tokenize`, `Detokenize`, `Probe`, `Cancel`, `Shutdown`), events come from it (`Ready`
or `NotReady` first, then `Queued`, `SlotAssigned`, `Delta`, `LabelsScored`, `Embedded`,
`RankScores`, `Transcribed`, `Tokenized`, `Detokenized`, `Status`, `Failed`). Every event but the
first names the command it answers by `id`.
The engine speaks tokens and text; it knows nothing of chats.

commands.py  commands to the worker
events.py    events from it
values.py    values in both
framing.py   frames on the socket
address.py   the address of an event
"""

from llm_backend.engine.messages.commands import (
    Cancel,
    Command,
    Detokenize,
    Embed,
    Generate,
    Probe,
    Question,
    Rank,
    ScoreLabels,
    Shutdown,
    Start,
    Tokenize,
    Transcribe,
    WorkerConfig,
)
from llm_backend.engine.messages.events import (
    Delta,
    Detokenized,
    Embedded,
    Event,
    Failed,
    LabelsScored,
    MediaSpan,
    NotReady,
    Queued,
    RankScores,
    Ready,
    SlotAssigned,
    Status,
    Tokenized,
    Transcribed,
    join_deltas,
)
from llm_backend.engine.messages.values import (
    PREFIX_BLOCK,
    SAMPLES_HZ,
    WINDOW_S,
    Adapter,
    Failure,
    FinishReason,
    GrammarLimits,
    Media,
    Medium,
    ModelInfo,
    ModelKind,
    PrefixLimits,
    Priority,
    Sampling,
    TimedWord,
    TokenLogprob,
    TranscriptSegment,
)

__all__ = [
    "PREFIX_BLOCK",
    "SAMPLES_HZ",
    "WINDOW_S",
    "Adapter",
    "Cancel",
    "Command",
    "Delta",
    "Detokenize",
    "Detokenized",
    "Embed",
    "Embedded",
    "Event",
    "Failed",
    "Failure",
    "FinishReason",
    "Generate",
    "GrammarLimits",
    "LabelsScored",
    "Media",
    "MediaSpan",
    "Medium",
    "ModelInfo",
    "ModelKind",
    "NotReady",
    "PrefixLimits",
    "Priority",
    "Probe",
    "Question",
    "Queued",
    "Rank",
    "RankScores",
    "Ready",
    "Sampling",
    "ScoreLabels",
    "Shutdown",
    "SlotAssigned",
    "Start",
    "Status",
    "TimedWord",
    "TokenLogprob",
    "Tokenize",
    "Tokenized",
    "Transcribe",
    "Transcribed",
    "TranscriptSegment",
    "WorkerConfig",
    "join_deltas",
]
