import numpy as np
import pytest

from llm_backend.engine.command_refused import CommandRefused
from llm_backend.engine.embedding.embedder import Embedder
from llm_backend.engine.messages import (
    Embed,
    Embedded,
    Failed,
    Failure,
    ModelKind,
    Rank,
    RankScores,
    SlotAssigned,
)
from llm_backend.engine.messages.address import Address
from tests.engine.fakes import FakeModel, Outbox, generate, load_command


def embedder(
    kind: ModelKind = ModelKind.EMBEDDING, **bounds: object
) -> tuple[Embedder, FakeModel, Outbox]:
    model, outbox = FakeModel(kind=kind), Outbox()
    return Embedder(model, load_command(**bounds), outbox.publish), model, outbox


def submit(engine: Embedder, name: str, inputs: list, now: float = 0) -> None:
    engine.submit(Address(1, name), Embed(id=name, inputs=inputs), now)


def rank(*documents: str, name: str = "1") -> Rank:
    return Rank(id=name, query="q", documents=list(documents))


def run(engine: Embedder) -> None:
    while not engine.is_idle:
        engine.step(0)


def is_answered(outbox: Outbox, name: str) -> bool:
    return isinstance(outbox.events[name][-1], Embedded | RankScores)


def test_embedder_returns_vectors_in_the_order_of_inputs():
    engine, _, outbox = embedder()
    submit(engine, "1", ["ab", "c", [1, 2, 3]])
    run(engine)
    accepted, event = outbox.events["1"]

    assert accepted == SlotAssigned(id="1", prompt_tokens=6)
    assert isinstance(event, Embedded)
    assert np.frombuffer(event.vectors, "<f4").tolist() == [3, 2, 3, 1, 6, 3]
    assert (event.embedding_size, event.prompt_tokens) == (2, 6)


def test_embedder_refuses_vectors_that_exceed_a_frame():
    engine, _, outbox = embedder()
    engine.answer_bytes = 20
    submit(engine, "large", ["a", "b", "c"])
    submit(engine, "small", ["a", "b"])
    run(engine)

    refused = outbox.events["large"][-1]
    assert (refused.failure, refused.field) == (Failure.INVALID, "inputs")
    assert is_answered(outbox, "small")


def test_embedder_batches_inputs_of_all_requests():
    engine, model, outbox = embedder()
    submit(engine, "long", ["abcdef"] * 10)
    submit(engine, "short", ["abc"])
    engine.step(0)

    assert is_answered(outbox, "short")
    run(engine)
    assert model.largest_pass <= model.batch_tokens
    assert is_answered(outbox, "long")


@pytest.mark.parametrize(
    ("inputs", "failure"),
    [
        ([], Failure.INVALID),
        (["a"] * 17, Failure.INVALID),
        ([""], Failure.INVALID),
        ([[99]], Failure.INVALID),
        (["a" * 17], Failure.CONTEXT_LENGTH),
    ],
)
def test_embedder_refuses_invalid_inputs(inputs, failure):
    engine, _, _ = embedder()

    with pytest.raises(CommandRefused) as caught:
        submit(engine, "1", inputs)

    assert caught.value.failure is failure
    assert engine.is_idle


@pytest.mark.parametrize(
    ("kind", "command", "words"),
    [
        (ModelKind.EMBEDDING, generate(), "makes embeddings; it cannot generate text"),
        (ModelKind.EMBEDDING, rank("a"), "makes embeddings; it cannot rank documents"),
        (ModelKind.RERANK, generate(), "ranks documents; it cannot generate text"),
        (ModelKind.RERANK, Embed(id="1", inputs=["a"]), "ranks documents; it cannot embed"),
    ],
)
def test_embedder_refuses_commands_of_another_kind(kind, command, words):
    engine, _, _ = embedder(kind)

    with pytest.raises(CommandRefused, match=words) as caught:
        engine.submit(Address(1, "1"), command, 0)

    assert caught.value.failure is Failure.UNSUPPORTED


def test_embedder_returns_scores_in_the_order_of_documents():
    engine, _, outbox = embedder(ModelKind.RERANK)
    engine.submit(Address(1, "1"), rank("ab", "cdef"), 0)
    run(engine)

    assert outbox.events["1"][1:] == [RankScores(id="1", scores=[1 / 7, 1 / 9], prompt_tokens=16)]


def test_embedder_batches_documents_of_all_requests():
    engine, model, outbox = embedder(ModelKind.RERANK)
    engine.submit(Address(1, "long"), rank(*["abc"] * 10, name="long"), 0)
    engine.submit(Address(1, "short"), rank("ab", name="short"), 0)
    engine.step(0)

    assert is_answered(outbox, "short")
    run(engine)
    assert model.largest_pass <= model.batch_tokens
    assert is_answered(outbox, "long")


def test_embedder_names_the_pair_that_is_too_long():
    engine, _, _ = embedder(ModelKind.RERANK)

    with pytest.raises(CommandRefused, match=r"takes 16 tokens; .* together have 17") as caught:
        engine.submit(Address(1, "1"), rank("a", "a" * 12), 0)

    assert (caught.value.failure, caught.value.field) == (
        Failure.CONTEXT_LENGTH,
        "documents[1]",
    )


@pytest.mark.parametrize("count", [0, 17])
def test_embedder_limits_the_number_of_documents(count):
    engine, _, _ = embedder(ModelKind.RERANK)

    with pytest.raises(CommandRefused, match="1 to 16 documents") as caught:
        engine.submit(Address(1, "1"), rank(*["a"] * count), 0)

    assert caught.value.failure is Failure.INVALID


def test_embedder_removes_cancelled_and_expired_requests():
    engine, _, outbox = embedder(queue_deadline_s=1)
    submit(engine, "cancelled", ["a"])
    submit(engine, "late", ["a"])
    engine.cancel(Address(1, "cancelled"))
    engine.step(2)
    (event,) = outbox.events["late"]

    assert isinstance(event, Failed)
    assert engine.is_idle
    assert "cancelled" not in outbox.events
