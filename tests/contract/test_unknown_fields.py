"""Fields that the document does not know are found, wherever they stand."""

import pytest

from llm_backend.contract import load_document
from llm_backend.contract.unknown_fields import KnownFields, unknown_fields
from llm_backend.contract.validation import Validators

VALIDATORS = Validators(load_document())
USER = {"role": "user", "content": [{"type": "text", "text": "Hi"}]}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"any": {"thing": 1}}}}


def known(operation_id: str) -> KnownFields:
    check = VALIDATORS.body(operation_id)
    assert check is not None
    return KnownFields([check.schema], check.component)


@pytest.mark.parametrize(
    ("operation_id", "body"),
    [
        ("createChatCompletion", {"model": "m", "messages": [USER], "tools": [TOOL]}),
        ("createChatCompletion", {"model": "m", "messages": [], "metadata": {"mine": "x"}}),
        ("createChatCompletion", {"model": "m", "messages": [], "logit_bias": {"17": 1}}),
        ("createResponse", {"model": "m", "input": [{**USER, "content": "x"}], "tools": [
            {"type": "function", "name": "f", "strict": True, "parameters": {"a": {"b": 1}}}]}),
        ("createImage", {"prompt": "a cat", "model": "m"}),
    ],
)  # fmt: skip
def test_known_fields_are_not_reported(operation_id: str, body: object):
    assert unknown_fields(body, known(operation_id)) == []


def test_unknown_fields_are_reported_by_their_path():
    body = {
        "model": "m",
        "messages": [
            {**USER, "mood": "good"},
            {"role": "user", "content": [{"type": "x", "y": 1}]},
        ],
        "tomorrow": {"a": 1},
        "stream_options": {"include_usage": True, "and": 1},
    }

    assert unknown_fields(body, known("createChatCompletion")) == [
        "tomorrow", "stream_options.and", "messages[0].mood", "messages[1].content[0].y"
    ]  # fmt: skip


def test_the_number_of_reported_fields_is_bounded():
    body = {f"field_{number}": 1 for number in range(100)}

    assert len(unknown_fields(body, known("createChatCompletion"))) == 16


def test_names_that_clients_choose_do_not_pile_up():
    place = known("createChatCompletion")
    for number in range(100):
        unknown_fields({"metadata": {f"name_{number}": {}}}, place)
    metadata = place.field("metadata")

    assert metadata is not None
    assert len(metadata._children) <= 1
