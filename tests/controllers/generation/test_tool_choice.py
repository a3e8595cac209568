"""Tools that a model is shown."""

import pytest

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
