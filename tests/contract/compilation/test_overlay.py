"""The overlay's actions do what OpenAPI Overlay 1.0.0 says, and two things more."""

from typing import Any

import pytest

from llm_backend.contract.compilation.overlay import OverlayError, apply_overlay


def applied(document: dict[str, Any], **action: Any) -> dict[str, Any]:
    return apply_overlay(document, {"actions": [{"description": "why", **action}]})


def test_update_merges_objects():
    document = {"a": {"b": {"c": 1, "d": 2}}}

    result = applied(document, target="$.a", update={"b": {"c": 3}, "e": 4})

    assert result == {"a": {"b": {"c": 3, "d": 2}, "e": 4}}
    assert document == {"a": {"b": {"c": 1, "d": 2}}}


def test_update_appends_to_arrays():
    assert applied({"a": [1]}, target="$.a", update=2) == {"a": [1, 2]}


def test_remove_deletes_every_selected_node():
    assert applied({"a": {"x": 1}, "b": {"x": 2}}, target="$.*.x", remove=True) == {
        "a": {},
        "b": {},
    }


def test_remove_deletes_every_selected_item_of_an_array():
    result = applied({"a": [1, 2, 3, 4]}, target="$.a[?@ < 3]", remove=True)

    assert result == {"a": [3, 4]}


def test_rename_keeps_the_order_of_keys():
    result = applied({"a": {"one": 1, "two": 2}}, target="$.a", **{"x-rename": {"one": "three"}})

    assert list(result["a"].items()) == [("three", 1), ("two", 2)]


@pytest.mark.parametrize(
    ("schema", "mended"),
    [
        ({"type": "string", "nullable": True}, {"type": ["string", "null"]}),
        (
            {"type": "string", "enum": ["a"], "nullable": True},
            {"type": ["string", "null"], "enum": ["a", None]},
        ),
        ({"anyOf": [{}], "nullable": True}, {"anyOf": [{}, {"type": "null"}]}),
        ({"$ref": "#/x", "nullable": True}, {"anyOf": [{"$ref": "#/x"}, {"type": "null"}]}),
    ],
)
def test_allow_null_makes_a_schema_nullable_in_the_syntax_of_3_1(schema: Any, mended: Any):
    result = applied({"a": schema}, target="$.a", **{"x-allow-null": True})

    assert result == {"a": mended}


def test_an_action_that_selects_nothing_is_refused():
    with pytest.raises(OverlayError, match=r"\$\.b selects nothing"):
        applied({"a": 1}, target="$.b", remove=True)


def test_all_actions_that_select_nothing_are_reported_at_once():
    actions = [{"target": target, "remove": True} for target in ("$.b", "$.a", "$.c")]
    with pytest.raises(OverlayError) as raised:
        apply_overlay({"a": 1}, {"actions": actions})

    assert [line.split()[3] for line in str(raised.value).splitlines()] == ["$.b", "$.c"]


def test_a_plain_value_cannot_be_updated():
    with pytest.raises(OverlayError, match="plain value"):
        applied({"a": 1}, target="$.a", update={"b": 1})
