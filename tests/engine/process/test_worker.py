"""The worker's main loop over a fake model: long texts are tokenized beside its passes."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from msgspec.structs import replace

from llm_backend.engine.generator import Generator
from llm_backend.engine.messages import (
    Cancel,
    Command,
    Delta,
    Event,
    Failed,
    Failure,
    ModelInfo,
    ModelKind,
    Probe,
    Question,
    Queued,
    ScoreLabels,
    SlotAssigned,
    Status,
    Tokenize,
    Tokenized,
    Transcribe,
    Transcribed,
)
from llm_backend.engine.messages.framing import FrameReader, events_in, frame
from llm_backend.engine.process.connection_server import ConnectionServer
from llm_backend.engine.process.model_loading import LoadedModel, MakeWorkerEngine
from llm_backend.engine.process.worker import Worker
from llm_backend.engine.sequential_engine import Report, SequentialEngine
from tests.engine.fakes import FakeModel, FakeVocabulary, generate, load_command

LONG = "a" * 20_000
UNKNOWN = "\u2603"  # no token has it


class WaitingVocabulary(FakeVocabulary):
    """Tokenizes long texts once `may_tokenize` is set."""

    def __init__(self) -> None:
        self.may_tokenize = threading.Event()

    def prompt_tokens(self, text: str, *, parse_special: bool, add_bos: bool) -> list[int]:
        if len(text) >= len(LONG):
            assert self.may_tokenize.wait(30), "the test has not allowed it"
        return super().prompt_tokens(text, parse_special=parse_special, add_bos=add_bos)


class Peer:
    """The owner's side of a worker's connection."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._reader = FrameReader()
        self._events: list[Event] = []

    def send(self, *commands: Command) -> None:
        self._socket.sendall(frame(commands))

    def receive(self) -> Event:
        while not self._events:
            for body in self._reader.feed(self._socket.recv(1 << 20)):
                self._events += events_in(body)
        return self._events.pop(0)


@contextmanager
def working(
    vocabulary: FakeVocabulary,
    *,
    context_tokens: int = 64,
    make_engine: MakeWorkerEngine | None = None,
    **limits: int,
) -> Iterator[Peer]:
    """A worker in a thread; it ends as its owner's connection is closed."""
    model = FakeModel(context_tokens=context_tokens)
    model.vocabulary = vocabulary
    ours, theirs = socket.socketpair()
    ours.settimeout(30)
    connections = ConnectionServer()
    begin = load_command(**limits)
    loaded = LoadedModel(
        info=ModelInfo(
            kind=ModelKind.CHAT, architecture="", name="", description="", size_bytes=0, backend=""
        ),
        make_engine=make_engine or (lambda outbox, _: Generator(model, begin, outbox)),
        tokenizing_model=model,
    )
    worker = Worker(connections, connections.add(theirs), loaded, begin)
    thread = threading.Thread(target=worker.run)
    thread.start()
    with ours:
        yield Peer(ours)
    thread.join(30)
    assert not thread.is_alive()


@pytest.mark.parametrize(("gpu_bytes", "delays"), [(0, True), (1, False)])
def test_worker_with_weights_on_a_gpu_sends_deltas_at_once(gpu_bytes, delays):
    model, begin, found = FakeModel(), load_command(), []
    info = ModelInfo(
        kind=ModelKind.CHAT, architecture="", name="", description="", size_bytes=0, backend=""
    )

    def make_engine(outbox, _receive):
        found.append(outbox._delays_deltas)
        return Generator(model, begin, outbox)

    loaded = LoadedModel(
        info=replace(info, gpu_bytes=gpu_bytes), make_engine=make_engine, tokenizing_model=model
    )
    Worker(ConnectionServer(), 0, loaded, begin)

    assert found == [delays]


def test_worker_computes_passes_while_it_tokenizes_a_long_text():
    vocabulary = WaitingVocabulary()
    with working(vocabulary) as peer:
        peer.send(Tokenize(id="long", text=LONG), generate(id="other", max_tokens=4))
        seen = [peer.receive()]
        while not (isinstance(seen[-1], Delta) and seen[-1].finish_reason):
            seen.append(peer.receive())
        assert not any(isinstance(event, Tokenized) for event in seen)
        vocabulary.may_tokenize.set()

        tokenized = peer.receive()

    assert isinstance(tokenized, Tokenized)
    assert tokenized.tokens == [1] * len(LONG)


def test_long_prompts_and_questions_are_tokenized_beside_passes():
    vocabulary = WaitingVocabulary()
    questions = [Question(text=LONG, labels=["a", "b"])]
    with working(vocabulary) as peer:
        peer.send(
            generate(LONG, id="long"),
            ScoreLabels(id="labels", prompt="a", questions=questions),
            generate(id="other", max_tokens=4),
        )
        seen = [peer.receive()]
        while not (isinstance(seen[-1], Delta) and seen[-1].finish_reason):
            seen.append(peer.receive())
        assert {event.id for event in seen} == {"other"}
        vocabulary.may_tokenize.set()

        ends = [peer.receive(), peer.receive()]

    # Both are too long for the context, which is known once they are tokenized.
    assert [(end.id, end.failure) for end in ends if isinstance(end, Failed)] == [
        ("long", Failure.CONTEXT_LENGTH),
        ("labels", Failure.CONTEXT_LENGTH),
    ]


def test_long_prompt_that_fits_is_answered():
    with working(FakeVocabulary(), context_tokens=20_000) as peer:
        peer.send(generate("a" * 17_000, id="long", max_tokens=2))
        seen = [peer.receive()]
        while not (isinstance(seen[-1], Delta) and seen[-1].finish_reason):
            seen.append(peer.receive())

    assert isinstance(seen[0], Queued)
    assert seen[-1].completion_tokens == 2


def test_long_prompts_beyond_the_queue_are_refused_before_they_are_tokenized():
    vocabulary = WaitingVocabulary()
    with working(vocabulary, queue_limit=1) as peer:
        peer.send(*(generate(LONG, id=str(number)) for number in range(8)))
        refused = peer.receive()
        vocabulary.may_tokenize.set()

    assert isinstance(refused, Failed)
    assert refused.failure is Failure.QUEUE_FULL


def test_long_texts_beyond_the_queue_are_refused_before_they_are_tokenized():
    vocabulary = WaitingVocabulary()
    with working(vocabulary, queue_limit=1) as peer:
        peer.send(*(Tokenize(id=str(number), text=LONG) for number in range(3)))
        refused = peer.receive()
        vocabulary.may_tokenize.set()
        done = [peer.receive(), peer.receive()]

    assert (refused.id, refused.failure) == ("2", Failure.QUEUE_FULL)
    assert all(isinstance(one, Tokenized) for one in done)


def test_status_counts_requests_that_wait_for_their_tokens():
    vocabulary = WaitingVocabulary()
    with working(vocabulary) as peer:
        peer.send(generate(LONG, id="long"), Tokenize(id="text", text=LONG), Probe(id="probe"))
        status = peer.receive()
        vocabulary.may_tokenize.set()

    assert isinstance(status, Status)
    assert status.waiting == 2


def test_command_that_fails_while_a_window_is_computed_fails_alone():
    class Broken(FakeVocabulary):
        def prompt_tokens(self, text: str, *, parse_special: bool, add_bos: bool) -> list[int]:
            raise ValueError("a defect")

    class Whisper:
        kind = ModelKind.TRANSCRIPTION
        may_end = threading.Event()

        def check(self, command: Transcribe) -> None:
            """Accepts every window."""

        def compute(
            self, command: Transcribe, should_stop: Callable[[], bool], _report: Report
        ) -> Transcribed:
            while not self.may_end.wait(0.001):
                should_stop()
            return Transcribed(id=command.id, segments=[], language="", language_name="", end_s=1)

    whisper = Whisper()
    begin = load_command()
    with working(
        Broken(),
        make_engine=lambda outbox, receive: SequentialEngine(
            whisper, begin, outbox.publish, receive
        ),
    ) as peer:
        peer.send(Transcribe(id="window", samples=b""))
        while not isinstance(peer.receive(), SlotAssigned):
            pass
        peer.send(Tokenize(id="bad", text="a"), Tokenize(id="worse", text="a"))
        failed = [peer.receive(), peer.receive()]
        whisper.may_end.set()
        end = peer.receive()

    assert [(one.id, one.failure) for one in failed] == [
        ("bad", Failure.INTERNAL),
        ("worse", Failure.INTERNAL),
    ]
    assert isinstance(end, Transcribed)


def test_text_that_cannot_be_tokenized_fails_alone():
    vocabulary = WaitingVocabulary()
    vocabulary.may_tokenize.set()
    with working(vocabulary) as peer:
        peer.send(Tokenize(id="bad", text=LONG + UNKNOWN), Tokenize(id="good", text=LONG))
        bad, good = sorted((peer.receive(), peer.receive()), key=lambda event: event.id)

    assert isinstance(bad, Failed)
    assert isinstance(good, Tokenized)


def test_cancelled_text_has_no_answer():
    vocabulary = WaitingVocabulary()
    with working(vocabulary) as peer:
        peer.send(Tokenize(id="long", text=LONG), Cancel(id="long"), Tokenize(id="a", text="a"))
        first = peer.receive()
        vocabulary.may_tokenize.set()
        peer.send(Tokenize(id="b", text=LONG))
        second = peer.receive()

    assert [first.id, second.id] == ["a", "b"]
