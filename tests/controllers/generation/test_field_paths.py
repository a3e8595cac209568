"""Errors of a chat that another request was translated to."""

import pytest

from llm_backend.controllers.generation.field_paths import rename_fields
from llm_backend.errors import InvalidRequest


def test_a_renamed_field_has_its_name_in_the_message_too():
    with (
        pytest.raises(InvalidRequest) as refused,
        rename_fields({"reasoning_effort": "think"}.__getitem__),
    ):
        raise InvalidRequest("No: `reasoning_effort` must be absent.", param="reasoning_effort")

    assert (refused.value.param, refused.value.message) == ("think", "No: `think` must be absent.")
    assert str(refused.value) == refused.value.message


def test_an_error_without_a_field_stays_as_it_is():
    with pytest.raises(InvalidRequest, match=r"^No.$"), rename_fields({}.__getitem__):
        raise InvalidRequest("No.")
