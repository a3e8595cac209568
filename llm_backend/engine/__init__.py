"""The local engine: continuous batching over llama.cpp, in a process of its own.

`EngineClient` is the entry point. It knows tokens and text, not HTTP, not OpenAI, not SQL.

client.py           `EngineClient`: commands of the API process, and their events
config.py           `EngineConfig`: of the worker, and of its supervision
errors.py           exceptions of the client
messages/           commands and events between the processes
process/            the worker process, its supervision, and connections to it
scheduling/         commands checked, the waiting queue, the tokens of each pass, label scoring
generator.py        text generation: one step of the worker
media_runs.py       images and audio in a prompt, as runs of placeholder tokens
kv_cache/           slots, cached prefixes, prefix files
speculation/        speculative decoding
sampling/           logits to tokens, grammars
output/             tokens to text deltas
embedding/          embeddings and relevance scores
sequence.py         one generation: its tokens, and those of the next pass
command_refused.py  refusal of a command
worker_engine.py    base of the engines of a worker
model.py            protocols of a model and its vocabulary
native_log.py       log of native code
llama/              llama.cpp's implementation of these protocols
batch.py            the tokens of one pass as arrays
statistics.py       counters of passes
moving_average.py   moving average of measured values
pass_threads.py     thread count of a model's passes: as configured, or learnt
pcm.py              samples of voices as 16 bits
thread_count_tuner.py  thread count learnt from the cost of passes, pure
sequential_engine.py  one command after the other
transcript_words.py words of a transcript, put together from tokens with times
whisper/            whisper.cpp: transcription
voices/             sherpa-onnx: speech, speakers
diffusion/          stable-diffusion.cpp: images
"""

from llm_backend.engine import messages
from llm_backend.engine.client import EngineClient, Generation, Scoring
from llm_backend.engine.config import EngineConfig
from llm_backend.engine.errors import CommandFailed, EngineDown, EngineStartError
from llm_backend.engine.process.lifecycle import EngineState

__all__ = [
    "CommandFailed",
    "EngineClient",
    "EngineConfig",
    "EngineDown",
    "EngineStartError",
    "EngineState",
    "Generation",
    "Scoring",
    "messages",
]
