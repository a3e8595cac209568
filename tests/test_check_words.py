"""Language check of `make words`."""

import ast

import pytest

from scripts.check_words import in_definitions, in_text


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


@pytest.mark.parametrize(
    ("message", "is_refused"),
    [
        ("`max_tool_calls` is at least 0.", True),
        ("`{name}` is from 0 to {limit}.", True),
        ("`mode` is `standard` or left out.", True),
        ("`max_tool_calls` must be at least 0.", False),
        ("`mode` must be `standard` or absent.", False),
        ("The mode is at least known.", False),
    ],
)
def test_a_message_that_states_a_rule_as_a_fact_is_refused(message, is_refused):
    found = list(in_definitions(ast.parse(f"raise E(f'{message}', param='p')"), is_test=False))

    assert bool(found) is is_refused


def test_a_docstring_may_state_a_rule_as_a_fact():
    source = "def f(n):\n    '''Returns: `n` is at least 0.'''\n"

    assert list(in_definitions(ast.parse(source), is_test=False)) == []


@pytest.mark.parametrize(
    ("source", "is_refused"),
    [
        ("asked_s = 1", True),
        ("self._told_bytes = 0", True),
        ("class C:\n    asked_by: str", True),
        ("def f(said): ...", True),
        ("print(self._told_bytes)", False),  # a name of another's, or one that is found where set
        ("requested_s = reported_bytes = unsaid = 1", False),
    ],
)
def test_a_variable_named_by_a_verb_of_speech_is_refused(source, is_refused):
    assert bool(list(in_definitions(ast.parse(source), is_test=False))) is is_refused


@pytest.mark.parametrize(
    ("text", "is_refused"),
    [
        ("Cost of a pass of so_many tokens.", True),
        ('"""So_many streams, each with a prompt of its own.', True),
        ("The voice of a speaker heard for so_long, from an embedding.", True),
        ("Returns the revision; None_without one.", True),
        ("Cost of a pass of `tokens` tokens.", False),
        ("So long files do not hold up short ones.", False),
        ("Of so_many that the rest is left, half is tried.", False),
        ("The server does not start without a key.", False),
    ],
)
def test_a_sentence_without_the_name_of_its_quantity_or_its_verb_is_refused(text, is_refused):
    sentence = text.replace("_", " ")  # with the words joined, this file passes the check

    assert bool(list(in_text(sentence, 1))) is is_refused
