"""Language check of `make words`: names of tests."""

import ast

import pytest

from scripts.check_words import in_definitions


def refused(source: str) -> list[str]:
    """The messages for a file of tests."""
    return [message for _, message in in_definitions(ast.parse(source), is_test=True)]


@pytest.mark.parametrize(
    "name",
    [
        "test_what_is_missing_is_named",
        "test_who_loads_waits",
        "test_whatever_came_before_the_result_is_the_same",
        "test_steps_are_told",
        "test_an_alert_says_so",
        "test_texts_for_clients_who_accept_them",
    ],
)
def test_a_test_name_without_a_noun_as_subject_is_refused(name):
    for keyword in ("def", "async def"):
        (message,) = refused(f"{keyword} {name}():\n    assert True\n")

        assert name in message


@pytest.mark.parametrize(
    "name",
    [
        "test_a_cut_model_file_is_refused",
        "test_files_whose_names_are_taken_are_left_out",
        "test_whatsapp_links_are_kept",
        "test_unsaid_words_are_no_whole_words",
        "what_was_told",
    ],
)
def test_a_test_name_of_plain_words_passes(name):
    assert refused(f"def {name}():\n    assert True\n") == []
