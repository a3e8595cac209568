"""What travels between the API process and the engine process: frozen values, framed as msgpack.

Commands go down (`Start` first, then `Generate`, `Embed`, `Rank`, `Tokenize`, `Detokenize`,
`Probe`, `Cancel`, `Shutdown`), events come up (`Ready` or `NotReady` first, then `Queued`,
`Accepted`, `Delta`, `Embedded`, `Ranked`, `Tokenized`, `Detokenized`, `Status`, `Failed`). Every
event but the first names the command it answers by `id`. The engine speaks tokens and text; what a
chat is, it does not know.
"""

from llm_backend.engine.messages.commands import (
    Cancel,
    Command,
    Detokenize,
    Embed,
    Generate,
    Probe,
    Rank,
    Shutdown,
    Start,
    Tokenize,
)
from llm_backend.engine.messages.events import (
    Accepted,
    Delta,
    Detokenized,
    Embedded,
    Event,
    Failed,
    NotReady,
    Queued,
    Ranked,
    Ready,
    Status,
    Tokenized,
    joined,
)
from llm_backend.engine.messages.values import (
    Adapter,
    Failure,
    FinishReason,
    GrammarLimits,
    ModelInfo,
    ModelKind,
    Priority,
    Sampling,
    TokenLogprob,
)

__all__ = [
    "Accepted",
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
    "ModelInfo",
    "ModelKind",
    "NotReady",
    "Priority",
    "Probe",
    "Queued",
    "Rank",
    "Ranked",
    "Ready",
    "Sampling",
    "Shutdown",
    "Start",
    "Status",
    "TokenLogprob",
    "Tokenize",
    "Tokenized",
    "joined",
]
