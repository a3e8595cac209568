"""llm-backend: a self-hosted server that implements OpenAI's own API document.

cli/                 command line
server/              sockets, TLS, processes
app/                 composition root
web/                 web pages
controllers/         operations of the document
access/              keys, limits, usage
backends/            models of this machine, and upstreams
contract/            OpenAI's document, and checks against it
engine/              continuous batching over llama.cpp
store/               SQL tables and blobs
extraction/          text of files
search/              vector index
model_import/        downloads and conversion
model_files/         GGUF headers and memory plans
builtin/             the built-in model
settings/            flags, environment, config file
ipc/                 messages between processes
cross_site_guard.py  guard against requests by pages of other sites
guards.py            allowed hosts, access log
home_folder.py       paths that begin with `~`
errors.py            errors that clients see
error_bodies.py      their bodies: OpenAI's, Anthropic's, Ollama's
sse.py               server-sent events
stream_ending.py     ends of broken streams
fair_queue.py        round-robin queue by caller
block_grants.py      shared limits, granted in blocks
background_tasks.py  tasks without a waiting caller
backoff.py           delays before what failed is tried again
child_process.py     child processes of one request
offload.py           work on large requests in a thread
word_signs.py        characters within words that are no letters
temporary_files.py   files of requests, and whether they have room
logs.py              log events
metrics.py           Prometheus metrics
engine_metrics.py    Prometheus metrics of the engines
tracing.py           OpenTelemetry spans
extras.py            optional dependencies
unused_imports.py    blocks imports that libraries make and this server does not use
installation.py      commands in hints, as they work where this program is installed
durations.py         lengths of time
close_names.py       similar names, for suggestions
operating_system.py  features of Linux and glibc, and substitutes
exact_json.py        JSON with integers of any size
json_types.py        types of parsed JSON
"""

__all__ = ["__version__"]

__version__ = "0.1.0"
