"""The builder takes prose out of a document, and nothing else."""

from pathlib import Path
from random import Random
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from llm_backend.cli import app
from llm_backend.contract.compilation.builder import build_contract, dump_facts, facts_of

PROSE = {"description": "prose", "title": "prose", "summary": "prose", "x-oaiMeta": {"a": 1}}


def document(**schemas: Any) -> dict[str, Any]:
    return {
        "openapi": "3.1.0",
        "info": {"title": "An API", "version": "1", "license": {"name": "MIT"}, "description": "p"},
        "tags": [{"name": "Things", "description": "prose"}],
        "paths": {
            "/things": {
                "get": {
                    "operationId": "listThings",
                    "description": "prose",
                    "parameters": [{"name": "title", "in": "query", "description": "prose"}],
                    "responses": {"200": {"description": "prose"}},
                }
            }
        },
        "components": {"schemas": schemas},
        "x-oaiMeta": {"navigation": []},
    }


def test_annotations_are_dropped_at_every_depth():
    item = {"type": "array", "items": {"type": "string", **PROSE}, **PROSE}

    facts = facts_of(document(Thing={"type": "object", "properties": {"a": item}, **PROSE}))

    assert facts["components"]["schemas"]["Thing"] == {
        "type": "object",
        "properties": {"a": {"type": "array", "items": {"type": "string"}}},
    }
    assert "prose" not in yaml.dump(facts)


def test_properties_named_like_annotations_are_kept():
    names = ["description", "title", "summary", "example", "examples", "x-id", "properties"]
    properties = {name: {"type": "string", **PROSE} for name in names}

    facts = facts_of(document(Thing={"properties": properties, "required": names}))

    assert facts["components"]["schemas"]["Thing"] == {
        "properties": {name: {"type": "string"} for name in names},
        "required": sorted(names),
    }


def test_defaults_enums_and_constants_are_kept_whole():
    schema = {"default": {"description": "kept"}, "enum": ["title"], "const": {"example": 1}}

    assert facts_of(document(Thing=schema))["components"]["schemas"]["Thing"] == schema


def test_responses_keep_a_description_of_our_own():
    facts = facts_of(document())

    assert facts["paths"]["/things"]["get"]["responses"]["200"]["description"] == "OK"


@pytest.mark.parametrize("status", ["default", "4XX"])
def test_responses_without_a_status_of_their_own_are_described_by_their_key(status: str):
    given = document()
    given["paths"]["/things"]["get"]["responses"] = {status: {"description": "prose"}}

    responses = facts_of(given)["paths"]["/things"]["get"]["responses"]

    assert responses == {status: {"description": status}}


def test_beta_twins_are_folded_into_their_operation():
    given = document()
    given["paths"]["/things?beta=true"] = {
        "get": {
            "operationId": "beta_listThings",
            "parameters": [{"name": "openai-beta", "in": "header"}],
            "responses": {"200": {"description": "prose"}},
        }
    }

    paths = facts_of(given)["paths"]

    assert list(paths) == ["/things"]
    operation = paths["/things"]["get"]
    assert [p["name"] for p in operation["parameters"]] == ["openai-beta", "beta", "title"]
    assert operation["x-beta"]["operationId"] == "beta_listThings"


def test_building_twice_gives_the_same_bytes(tmp_path: Path):
    source = tmp_path / "source.yaml"
    source.write_text(yaml.dump(document(Thing={"type": "object", **PROSE})))

    build_contract(str(source), tmp_path / "one.yaml")
    build_contract(str(source), tmp_path / "two.yaml")

    assert (tmp_path / "one.yaml").read_bytes() == (tmp_path / "two.yaml").read_bytes()


@given(st.randoms(use_true_random=False))
def test_building_from_another_order_gives_the_same_bytes(random: Random):
    thing = {"type": ["string", "null"], "enum": ["b", "a", None], "default": ["b", "a"]}
    union = {"oneOf": [{"type": "object", "required": ["y", "x"]}, {"type": "string"}]}
    facts = dump_facts(facts_of(document(Thing=thing, Union=union)))

    other = _shuffle(document(Thing=thing, Union=union), random)

    assert dump_facts(facts_of(other)) == facts


def _shuffle(node: Any, random: Random, key: str = "") -> Any:
    """Shuffles keys, and the lists whose order says nothing."""
    if isinstance(node, dict):
        keys = random.sample(list(node), len(node))
        return {one: _shuffle(node[one], random, one) for one in keys}
    if isinstance(node, list):
        items = [_shuffle(item, random) for item in node]
        is_set = key in {"enum", "required", "oneOf", "type", "parameters"}
        return random.sample(items, len(items)) if is_set else items
    return node


def test_the_contract_holds_no_prose():
    contract = yaml.load(Path("openapi/openapi.yaml").read_bytes(), Loader=yaml.CSafeLoader)

    text = yaml.dump(contract["paths"], Dumper=yaml.CSafeDumper)

    words = ("x-oaiMeta", "summary:", "example:", "externalDocs")
    assert [word for word in words if word in text] == []


def test_the_command_writes_the_facts(tmp_path):
    source, target = tmp_path / "source.yaml", tmp_path / "facts.yaml"
    source.write_text(yaml.dump(document(Thing={"type": "object", **PROSE})))

    done = CliRunner().invoke(app, ["contract", "build", str(source), "--target", str(target)])

    assert done.exit_code == 0, done.output
    assert yaml.safe_load(target.read_text()) == facts_of(yaml.safe_load(source.read_text()))
