"""Tools that a model is shown."""

import pytest

from llm_backend.controllers.generation.request_translation import chat_from
from llm_backend.controllers.generation.tool_choice import check_functions
from llm_backend.errors import InvalidRequest


class Name(str):
    """A name that counts its comparisons with others."""

    comparisons = 0
    __hash__ = str.__hash__

    def __eq__(self, other: object) -> bool:
        Name.comparisons += 1
        return super().__eq__(other)


def functions(*names: str) -> list[dict]:
    return [{"type": "function", "function": {"name": name}} for name in names]


def test_names_of_many_tools_are_compared_without_all_pairs():
    check_functions(functions(*(Name(f"f{number}") for number in range(1000))))

    assert Name.comparisons < 1000


def test_the_second_of_two_equal_names_is_refused():
    with pytest.raises(InvalidRequest) as refused:
        check_functions(functions("f", "g", "f"))

    assert refused.value.param == "tools[2].function.name"


@pytest.mark.parametrize(
    ("entry", "named"),
    [
        ({"type": "function", "function": {"name": "g"}}, "`g`"),
        ({"type": "custom", "custom": {"name": "h"}}, "`h`"),
        ({"type": "custom", "custom": {"name": "f"}}, "`f`"),
        ({"type": "function", "function": "f"}, "``"),
        ({"type": "function", "function": {"name": ["f"]}}, "``"),
        ({"type": "custom", "custom": {"name": {}}}, "``"),
        ({"type": "custom", "custom": ["f"]}, "``"),
        ({}, "``"),
    ],
)
def test_an_allowed_tool_that_is_none_of_the_tools_is_refused(entry: dict, named: str):
    choice = {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [entry]}}
    body = {"model": "m", "messages": [], "tools": functions("f"), "tool_choice": choice}
    with pytest.raises(InvalidRequest) as refused:
        chat_from(body, choices_limit=1)

    assert refused.value.message == f"{named} is not among the `tools`."
    assert refused.value.param == "tool_choice.allowed_tools.tools"
