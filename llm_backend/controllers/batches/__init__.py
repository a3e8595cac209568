"""Batches: background jobs that run the requests of an input file stored on this server.

operations.py    create, list, retrieve, cancel
batch_worker.py  validates the input, writes the output
lines_worker.py  runs lines
line_sender.py   sends lines to the application
line_chunk.py    lines of one job
batch_input.py   parser of input files
batch_output.py  lines of output files
"""

from collections.abc import Sequence

from starlette.types import ASGIApp

from llm_backend.controllers.batches.batch_worker import BatchWorker
from llm_backend.controllers.batches.line_chunk import ATTEMPTS_PER_CHUNK
from llm_backend.controllers.batches.line_sender import LineSender
from llm_backend.controllers.batches.lines_worker import CHUNK_CONCURRENCY, LinesWorker
from llm_backend.controllers.services import Services
from llm_backend.store import BATCH, BATCH_LINES, JobKind

__all__ = ["batch_jobs"]

READ_CONCURRENCY = 2  # batches whose input is read or whose output is written


def batch_jobs(services: Services, app: ASGIApp) -> Sequence[JobKind]:
    """Returns the job kinds of batches; `app` answers their lines."""
    batches, files, settings = services.batches, services.files, services.settings
    lines = LinesWorker(
        batches, files, LineSender(app), services.access.keyring.find_caller_of, settings
    )
    return (
        JobKind(
            name=BATCH,
            worker=BatchWorker(batches, files, settings),
            max_concurrency=READ_CONCURRENCY,
        ),
        JobKind(
            name=BATCH_LINES,
            worker=lines,
            max_concurrency=CHUNK_CONCURRENCY,
            attempts=ATTEMPTS_PER_CHUNK,
        ),
    )
