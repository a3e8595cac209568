"""Items of every kind that clients send, also in part, are listed by the document or refused."""

import json
from collections.abc import Iterator, Mapping
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from llm_backend.contract import load_document
from llm_backend.contract.validation import Validators
from llm_backend.controllers.response_items.items import stored_form
from llm_backend.controllers.services.listed_items import (
    OF_CONVERSATIONS,
    OF_RESPONSES,
    ListedItems,
)
from llm_backend.errors import InvalidRequest
from tests.examples import examples

DOCUMENT = load_document()
SCHEMAS: Mapping[str, Any] = json.loads(DOCUMENT.text())["components"]["schemas"]
LISTED = ListedItems(Validators(DOCUMENT))
# The document's lists of items do not hold some of these, whatever a server stores.
REFUSED_AT_TIMES = {
    "CompactionTriggerItemParam",
    "LocalShellToolCallOutput",
    "ComputerCallOutputItemParam",
    "AdditionalToolsItemParam",  # a tool's tunnel_id that no tunnel has
    "ToolSearchOutputItemParam",  # the same
    "EasyInputMessage",  # images and files of an assistant
}


def resolved(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    while "$ref" in schema:
        schema = SCHEMAS[schema["$ref"].rpartition("/")[2]]
    return schema


def variants(schema: Mapping[str, Any], name: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The schemas of a union, by their names."""
    name = schema.get("$ref", name).rpartition("/")[2]
    schema = resolved(schema)
    parts = schema.get("oneOf") or schema.get("anyOf") or ()
    if "properties" in schema or not parts:
        yield name, schema
        return
    for part in parts:
        yield from variants(part, name)


def value_of(schema: Mapping[str, Any], random: Random, depth: int = 0) -> Any:
    """A value of a schema; optional fields are there or not."""
    schema = resolved(schema)
    for union in ("oneOf", "anyOf"):
        if union in schema:
            return value_of(resolved(random.choice(schema[union])), random, depth)
    if "const" in schema or "enum" in schema:
        return random.choice(schema.get("enum") or [schema["const"]])
    match schema.get("type", "object"):
        case "object":
            required = schema.get("required", ())
            return {
                name: value_of(field, random, depth + 1)
                for name, field in schema.get("properties", {}).items()
                if name in required or (depth < 5 and random.random() < 0.4)
            }
        case "array":
            count = max(schema.get("minItems", 0), random.randrange(2) if depth < 6 else 0)
            return [value_of(schema.get("items", {}), random, depth + 1) for _ in range(count)]
        case "string":
            return "x" * max(1, schema.get("minLength", 1))
        case "integer" | "number":
            return max(schema.get("minimum", 0), schema.get("exclusiveMinimum", -1) + 1)
        case "boolean":
            return random.random() < 0.5
        case _:
            return None


KINDS = dict(variants(SCHEMAS["InputItem"], "InputItem"))
SENT = sorted(KINDS.keys() - {"ItemReferenceParam"})


async def refusal_of(stored: dict[str, Any]) -> InvalidRequest | None:
    try:
        await LISTED.check([stored], "input", OF_RESPONSES, OF_CONVERSATIONS)
    except InvalidRequest as refusal:
        return refusal
    return None


def test_every_kind_of_item_is_tried():
    assert len(SENT) > 25
    assert "EchoedItem" in SENT


@pytest.mark.parametrize("kind", SENT)
@settings(max_examples=examples(25))
@given(random=some.randoms(use_true_random=False))
async def test_sent_item_is_listed_by_the_document_or_refused_by_its_path(kind, random):
    sent = value_of(KINDS[kind], random)

    refusal = await refusal_of(stored_form(sent))

    if refusal is not None:
        assert kind in REFUSED_AT_TIMES or sent["type"] == "local_shell_call", refusal.message
        assert (refusal.param or "").startswith("input[0]")


@pytest.mark.parametrize("kind", ["reasoning", "file_search_call", "mcp_call", "web_search_call"])
async def test_echoed_item_is_completed_and_a_wrong_field_refused(kind):
    assert await refusal_of(stored_form({"type": kind})) is None

    refusal = await refusal_of(stored_form({"type": kind, "status": "odd"}))

    assert refusal is not None
    assert refusal.param == "input[0].status"


async def test_refused_item_is_named_by_its_place_among_many():
    items = [stored_form({"type": "reasoning"}) for _ in range(3000)]
    items[2500] = stored_form({"type": "reasoning", "status": "odd"})

    with pytest.raises(InvalidRequest) as error:
        await LISTED.check(items)

    assert error.value.param == "items[2500].status"
    assert "'items[2500].status'" in error.value.message
