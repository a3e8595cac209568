"""Repetitions are found as by looking everywhere."""

from hypothesis import given
from hypothesis import strategies as st

from llm_backend.engine.speculation.prompt_lookup import PromptLookup, SharedPromptLookup

TEXTS = st.lists(st.integers(0, 3), max_size=30)  # few enough places that none is passed over


def looked_up(tokens: list[int], prediction: list[int] | None = None) -> PromptLookup:
    lookup = PromptLookup(prediction or [])
    lookup.extend(tokens)
    return lookup


def repetition_length(tokens: list[int], index: int) -> int:
    """Length of the common suffix of the tokens before an index and of all tokens."""
    length = 0
    while length < index and tokens[index - 1 - length] == tokens[-1 - length]:
        length += 1
    return length


@given(TEXTS)
def test_prompt_lookup_finds_the_longest_then_latest_repetition(tokens):
    places = range(2, len(tokens))
    lengths = {
        index: repetition_length(tokens, index)
        for index in places
        if repetition_length(tokens, index) >= 2
    }
    best = max(lengths, key=lambda index: (lengths[index], index), default=None)

    expected = None if best is None else (best, lengths[best])
    assert looked_up(tokens).match() == expected


@given(TEXTS, st.integers(1, 12))
def test_prompt_lookup_continues_as_after_the_repetition(tokens, count):
    lookup = looked_up(tokens)
    match = lookup.match()
    if match is None:
        return
    found = lookup.continuation(match[0], count)

    grown = list(tokens)
    for ahead in range(count):
        grown.append(grown[match[0] + ahead])
    assert found == grown[len(tokens) :]


def test_prompt_lookup_continues_a_periodic_text():
    lookup = looked_up([1, 2, 1, 2, 1, 2])
    index, _ = lookup.match()

    assert lookup.continuation(index, 5) == [1, 2, 1, 2, 1]


def test_prompt_lookup_begins_the_prediction_with_the_answer():
    lookup = looked_up([9, 9, 9], prediction=[5, 6, 7])
    lookup.mark_begin()
    index, _ = lookup.match()

    assert lookup.continuation(index, 9) == [5, 6, 7]
    assert [lookup.is_prediction(index + ahead) for ahead in range(3)] == [True] * 3


def test_prompt_lookup_finds_the_prediction_after_an_edit():
    lookup = looked_up([9, 9, 9], prediction=[5, 6, 7, 8])
    lookup.mark_begin()
    lookup.extend([4, 5, 6])
    index, length = lookup.match()

    assert (lookup.continuation(index, 9), length) == ([7, 8], 2)


def test_prompt_lookup_does_not_extend_across_the_prediction():
    lookup = looked_up([5, 6], prediction=[5, 6])
    index, _ = lookup.match()

    assert lookup.token_at(index) is None
    assert lookup.continuation(index, 3) == []


@given(st.data(), TEXTS, TEXTS, st.integers(1, 3))
def test_answers_look_up_one_prompt_apart(data, prompt, prediction, count):
    shared = SharedPromptLookup(count)
    for _ in range(count):
        taken, alone = shared.take(prompt, prediction), PromptLookup(prediction)
        alone.extend(prompt)
        alone.mark_begin()
        for token in data.draw(TEXTS.filter(bool)):
            taken.push(token)
            alone.push(token)
        assert taken.match() == alone.match()
        assert taken.continuation(0, 9) == alone.continuation(0, 9)


def test_prompt_of_several_answers_is_read_once():
    class Prompt(list):
        reads = 0

        def __iter__(self):
            self.reads += 1
            return super().__iter__()

    shared, prompt = SharedPromptLookup(3), Prompt([1, 2, 3, 1, 2])
    taken = [shared.take(prompt, ()) for _ in range(3)]
    shorter = shared.take(prompt[1:], ())

    assert prompt.reads == 1
    assert [one.match() for one in taken] == [(2, 2)] * 3
    assert shorter.match() is None
