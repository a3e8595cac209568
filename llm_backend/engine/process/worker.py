"""The worker process: a loop that takes commands, computes one pass and publishes events. It
blocks while idle.

The owner starts `python -m llm_backend.engine.process.worker FD`, where FD is an inherited socket
to the owner. The worker ends when that socket is closed; on Linux also when its parent dies in the
middle of a long pass.
"""

import gc
import logging
import os
import signal
import socket
import sys
import time
from collections import deque

from msgspec.structs import replace

from llm_backend.engine.command_refused import CommandRefused, check_queue, unsupported_command
from llm_backend.engine.generator import Generator
from llm_backend.engine.messages import (
    Cancel,
    Command,
    Detokenize,
    Detokenized,
    Diarize,
    Draw,
    Embed,
    Failed,
    Failure,
    Generate,
    LoadModel,
    NotReady,
    Probe,
    Queued,
    Rank,
    Ready,
    ScoreLabels,
    Shutdown,
    Speak,
    Tokenize,
    Tokenized,
    Transcribe,
)
from llm_backend.engine.messages.address import Address
from llm_backend.engine.model import DecodeError, LoadError, OutOfMemory
from llm_backend.engine.process.connection_server import ConnectionServer, ReceivedCommand
from llm_backend.engine.process.model_loading import LoadedModel, load_model
from llm_backend.engine.process.outbox import Outbox
from llm_backend.engine.process.tokenizer_thread import (
    LongCommand,
    PendingTokens,
    TokenizerThread,
    is_long,
)
from llm_backend.engine.process.worker_log import FORMAT
from llm_backend.engine.scheduling.command_validation import check_tokens
from llm_backend.engine.scheduling.prompt_tokens import tokenize_prompt
from llm_backend.engine.scheduling.request_table import ValidatedCommand
from llm_backend.operating_system import die_with_parent

_log = logging.getLogger("llm_backend.engine.process.worker")

_TOKENIZER_WAIT_S = 0.002  # wait of an idle worker before commands are polled again


class Worker:
    """Main loop of a worker with one model; `owner` is the connection that may end it."""

    def __init__(
        self, connections: ConnectionServer, owner: int, model: LoadedModel, config: LoadModel
    ) -> None:
        self._connections = connections
        self._owner = owner
        self._model = model
        self._outbox = Outbox(connections, delays_deltas=not model.info.gpu_bytes)
        self._engine = model.make_engine(self._outbox, self._receive)
        self._tokenizer = TokenizerThread(self._tokenize_long)
        self._queue_limit = config.queue_limit
        self._inbox: deque[ReceivedCommand] = deque()
        self._current: Address | None = None  # of the command that is being handled
        self._is_over = False

    def run(self) -> None:
        """Steps until a shutdown command, or until the owner's connection is closed."""
        while not self._is_over:
            try:
                self.step()
            except Exception as error:  # an error of one step must not end the others
                self._fail(error)
            self._outbox.end_step(is_idle=self._engine.is_idle)
        self._engine.close()
        self._tokenizer.close()

    def step(self) -> None:
        """Runs one iteration of the main loop; waits for commands if there is no other work."""
        is_idle = self._engine.is_idle and not self._inbox
        if is_idle and not self._tokenizer.is_idle:
            self._tokenizer.wait(_TOKENIZER_WAIT_S)
            is_idle = False
        timeout_s = self._engine.idle_timeout_s(time.monotonic()) if is_idle else 0
        self._handle_commands(timeout_s)
        while done := self._tokenizer.pop_done():
            self._finish_tokenizing(done)
        self._engine.wait()
        # without the waits: `busy_s` tells the cost of passes
        started_at = time.monotonic()
        self._engine.step(started_at)
        self._engine.statistics.busy_s += time.monotonic() - started_at

    def _receive(self) -> bool:
        """Handles the commands that have arrived in the middle of a step; True if the worker must
        end. Raises nothing: native code calls it, and would ignore an error."""
        try:
            self._handle_commands(0)
            self._outbox.send()
        except Exception as error:  # an error of one command must not end the step of another
            self._fail(error)
        return self._is_over

    def _handle_commands(self, timeout_s: float | None) -> None:
        self._inbox.extend(self._connections.poll(timeout_s))
        while self._inbox:
            self._handle(self._inbox.popleft())

    def _handle(self, received: ReceivedCommand) -> None:
        """Handles a command, or the end of a connection."""
        command = received.command
        if command is None:
            self._engine.cancel_connection(received.connection)
            self._tokenizer.cancel_connection(received.connection)
            self._is_over = self._is_over or received.connection == self._owner
            return
        self._current = Address(received.connection, getattr(command, "id", ""))
        try:
            self._execute(self._current, command)
        except CommandRefused as refusal:
            self._refuse(self._current, refusal)
        self._current = None

    def _finish_tokenizing(self, done: PendingTokens[Tokenized | ValidatedCommand]) -> None:
        """Answers or submits a command whose texts were tokenized."""
        self._current = done.address
        try:
            result = done.future.result()
            if isinstance(result, Tokenized):
                self._outbox.publish(done.address, result)
            else:
                assert isinstance(self._engine, Generator), "it has validated the command"
                assert not isinstance(done.command, Tokenize), "it was validated"
                self._engine.submit(done.address, done.command, done.arrived_at, result)
                self._outbox.publish(done.address, Queued(id=done.command.id))
        except CommandRefused as refusal:
            self._refuse(done.address, refusal)
        self._current = None

    def _execute(self, address: Address, command: Command) -> None:
        match command:
            case Generate() | ScoreLabels() if self._should_wait_for_tokens(command):
                self._tokenizer.submit(address, command)
            case (
                Generate()
                | ScoreLabels()
                | Embed()
                | Rank()
                | Transcribe()
                | Speak()
                | Diarize()
                | Draw()
            ):
                self._engine.submit(address, command, time.monotonic())
                self._outbox.publish(address, Queued(id=command.id))
            case Cancel():
                self._engine.cancel(address)
                self._tokenizer.cancel(address)
            case Tokenize() if is_long(command):
                tokenizing = sum(isinstance(one, Tokenize) for one in self._tokenizer.pending)
                check_queue(tokenizing, self._queue_limit, free_slots=1, noun="texts")
                self._tokenizer.submit(address, command)
            case Tokenize():
                self._outbox.publish(address, self._tokenize(command))
            case Detokenize():
                self._outbox.publish(address, self._detokenize(command))
            case Probe():
                status = self._engine.status(command.id)
                waiting = status.waiting + len(self._tokenizer.pending)
                self._outbox.publish(address, replace(status, waiting=waiting))
            case Shutdown() if address.connection == self._owner:
                self._is_over = True
            case Shutdown() | LoadModel():
                _log.warning("engine.command_refused", extra={"command": type(command).__name__})

    def _should_wait_for_tokens(self, command: Generate | ScoreLabels) -> bool:
        """True for a command with long texts. Raises `CommandRefused` if the queue is full."""
        if not isinstance(self._engine, Generator) or not is_long(command):
            return False
        pending = [one for one in self._tokenizer.pending if not isinstance(one, Tokenize)]
        additional = sum(one.priority is command.priority for one in pending)
        self._engine.check_queue(command.priority, additional)
        return True

    def _tokenize_long(self, command: LongCommand) -> Tokenized | ValidatedCommand:
        if isinstance(command, Tokenize):
            return self._tokenize(command)
        assert isinstance(self._engine, Generator), "other engines get no such command"
        return self._engine.validate(command)

    def _tokenize(self, command: Tokenize) -> Tokenized:
        model = self._model.tokenizing_model
        if model is None:
            raise unsupported_command(self._model.info.kind, command)
        prompt = tokenize_prompt(command.text, command, model.vocabulary, model.projector)
        return Tokenized(id=command.id, tokens=prompt.mask_media())

    def _detokenize(self, command: Detokenize) -> Detokenized:
        model = self._model.tokenizing_model
        if model is None:
            raise unsupported_command(self._model.info.kind, command)
        check_tokens(command.tokens, model.vocabulary.size, "tokens")
        return Detokenized(id=command.id, text=model.vocabulary.text(command.tokens))

    def _fail(self, error: Exception) -> None:
        """Logs an error, and fails the command that was being handled, or else the requests of the
        step."""
        _log.error("engine.step_failed", exc_info=error)
        message = f"{type(error).__name__}: {error}"
        if self._current is None:
            self._engine.abort(message)
            return
        self._engine.cancel(self._current)
        self._refuse(self._current, CommandRefused(Failure.INTERNAL, message))
        self._current = None

    def _refuse(self, address: Address, refusal: CommandRefused) -> None:
        event = Failed(
            id=address.id, failure=refusal.failure, message=str(refusal), field=refusal.field
        )
        self._outbox.publish(address, event)


def main() -> None:
    """Loads the model that the owner names, verifies a language model by a forward pass, serves."""
    die_with_parent()
    # signals to the process group also reach the owner, which shuts the worker down
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    connections = ConnectionServer()
    owner = connections.add(socket.socket(fileno=int(sys.argv[-1])))
    config = _first_command(connections)
    if config is None:
        return
    # The log has a descriptor of its own: standard error leads to /dev/null while a library runs
    # that prints clients' texts (`voices/quiet.py`).
    log_stream = os.fdopen(os.dup(sys.stderr.fileno()), "w", buffering=1)
    logging.basicConfig(level=config.log_level, format=FORMAT, stream=log_stream)
    connections.outbox_bytes = config.outbox_bytes
    try:
        model = load_model(config)
    except (LoadError, DecodeError) as error:
        lacks_memory = isinstance(error, OutOfMemory)
        connections.send(owner, [NotReady(message=str(error), lacks_memory=lacks_memory)])
        return
    gc.freeze()
    ready = Ready(info=model.info, pid=os.getpid())
    connections.send(owner, [ready])
    if config.listening_fd is not None:
        connections.listen(
            socket.socket(fileno=config.listening_fd),
            first_event=ready,
            limit=config.connections_limit,
        )
    Worker(connections, owner, model, config).run()


def _first_command(connections: ConnectionServer) -> LoadModel | None:
    """Waits for the owner's `LoadModel` command; None if the connection is closed before."""
    while True:
        for received in connections.poll(None):
            if received.command is None or isinstance(received.command, LoadModel):
                return received.command


if __name__ == "__main__":
    main()
