"""Moderation by the built-in model: the form, the constraint, and that it is the same each time.
What such a small model thinks of a text says nothing."""

import openai
import pytest

TEXTS = ["I will hurt you.", "The cat sat on the mat.", ""]


def test_every_text_gets_a_score_for_every_kind_and_the_same_one_again(exact_client):
    first = exact_client.moderations.create(input=TEXTS)
    again = exact_client.moderations.create(input=TEXTS, model="builtin")

    assert first.model == "builtin"
    assert len(first.results) == len(TEXTS)
    for one, other in zip(first.results, again.results, strict=True):
        scores = one.category_scores.to_dict()
        assert len(scores) == 13
        assert all(0 <= score <= 1 for score in scores.values())
        flags = one.categories.to_dict()
        assert flags == {name: score >= 0.5 for name, score in scores.items()}
        assert one.flagged == any(flags.values())
        assert set(one.category_applied_input_types.to_dict()) == set(scores)
        assert scores == pytest.approx(other.category_scores.to_dict(), abs=1e-4)


def test_parts_are_judged_together_and_an_image_is_refused_by_its_place(client):
    text = {"type": "text", "text": "What is this?"}
    image = {"type": "image_url", "image_url": {"url": "https://example.com/cat.png"}}
    answer = client.moderations.create(input=[text, text])
    with pytest.raises(openai.BadRequestError) as caught:
        client.moderations.create(input=[text, image])

    assert len(answer.results) == 1
    assert caught.value.param == "input[1].image_url"


def test_a_text_that_does_not_fit_and_a_model_that_unknown_has_are_named(client):
    with pytest.raises(openai.BadRequestError) as too_long:
        client.moderations.create(input=["short", "word " * 5000])
    with pytest.raises(openai.NotFoundError) as unknown:
        client.moderations.create(input="a", model="unknown")

    assert (too_long.value.code, too_long.value.param) == ("context_length_exceeded", "input[1]")
    assert unknown.value.code == "model_not_found"
