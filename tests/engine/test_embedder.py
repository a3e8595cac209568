import numpy as np
import pytest

from llm_backend.engine.address import Address
from llm_backend.engine.admission import Refused
from llm_backend.engine.embedder import Embedder
from llm_backend.engine.messages import Embed, Embedded, Failed, Failure
from tests.engine.fakes import FakeModel, Outbox, generate, start


def embedder(**bounds: object) -> tuple[Embedder, FakeModel, Outbox]:
    model, outbox = FakeModel(), Outbox()
    return Embedder(model, start(**bounds), outbox), model, outbox


def submit(engine: Embedder, name: str, inputs: list, now: float = 0) -> None:
    engine.submit(Address(1, name), Embed(id=name, inputs=inputs), now)


def run(engine: Embedder) -> None:
    while not engine.is_idle:
        engine.turn(0)


def test_vectors_come_in_the_order_of_the_inputs():
    engine, _, outbox = embedder()
    submit(engine, "1", ["ab", "c", [1, 2, 3]])
    run(engine)
    (event,) = outbox.events["1"]

    assert isinstance(event, Embedded)
    assert np.frombuffer(event.vectors, "<f4").tolist() == [3, 2, 3, 1, 6, 3]
    assert (event.embedding_size, event.prompt_tokens) == (2, 6)


def test_inputs_of_all_requests_share_a_pass_within_its_budget():
    engine, model, outbox = embedder()
    submit(engine, "long", ["abcdef"] * 10)
    submit(engine, "short", ["abc"])
    engine.turn(0)

    assert "short" in outbox.events
    run(engine)
    assert model.largest_pass <= model.batch_tokens
    assert "long" in outbox.events


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
def test_what_cannot_be_embedded_is_refused(inputs, failure):
    engine, _, _ = embedder()

    with pytest.raises(Refused) as caught:
        submit(engine, "1", inputs)

    assert caught.value.failure is failure
    assert engine.is_idle


def test_a_model_that_embeds_does_not_generate():
    engine, _, _ = embedder()

    with pytest.raises(Refused) as caught:
        engine.submit(Address(1, "1"), generate(), 0)

    assert caught.value.failure is Failure.UNSUPPORTED


def test_a_cancelled_request_and_one_that_waited_too_long_are_gone():
    engine, _, outbox = embedder(queue_deadline_s=1)
    submit(engine, "cancelled", ["a"])
    submit(engine, "late", ["a"])
    engine.cancel(Address(1, "cancelled"))
    engine.turn(2)
    (event,) = outbox.events["late"]

    assert isinstance(event, Failed)
    assert engine.is_idle
    assert "cancelled" not in outbox.events
