import pytest

from llm_backend.backends.local.chat_template import ChatTemplate
from llm_backend.backends.local.control_tokens import ControlTokenGuard
from llm_backend.backends.local.media import Image, Marks
from llm_backend.errors import InvalidRequest
from tests.counted_work import growth


def image(name: str) -> Image:
    return Image(url=f"data:{name}", param=name)


def rendered(marks: Marks, template: str = "[{}]") -> str:
    return "".join(template.format(message["content"]) for message in marks.messages)


def test_media_keep_their_positions_in_the_prompt():
    cat, dog = image("cat"), image("dog")
    marks = Marks(
        [
            {"role": "system", "content": "Look."},
            {"role": "user", "content": ["one", "two", cat, "is it", dog]},
            {"role": "user", "content": [cat]},
        ]
    )

    placed = marks.remove_from(rendered(marks), [])

    assert placed.text == "[Look.][one\ntwois it][]"
    assert [(placed.text[:at], one) for at, one in placed.media] == [
        ("[Look.][one\ntwo", cat),
        ("[Look.][one\ntwois it", dog),
        ("[Look.][one\ntwois it][", cat),
    ]


def test_cuts_are_shifted_with_removed_marks():
    marks = Marks([{"role": "user", "content": ["pq", image("cat"), "rs", image("dog"), "tu"]}])
    text = rendered(marks, "{}")

    placed = marks.remove_from(text, [text.index(letter) for letter in "qrsu"])

    assert [placed.text[:cut] for cut in placed.cuts] == ["p", "pq", "pqr", "pqrst"]


def test_messages_without_media_are_unchanged():
    messages = [{"role": "user", "content": "\ufdd10\ufdd1"}]
    marks = Marks(messages)

    assert marks.messages is messages
    assert marks.remove_from("\ufdd10\ufdd1", [3]).text == "\ufdd10\ufdd1"


@pytest.mark.parametrize("template", ["nothing", "{0}{0}"])
def test_template_that_omits_or_repeats_an_image_is_refused(template):
    marks = Marks([{"role": "user", "content": [image("cat")]}])

    with pytest.raises(InvalidRequest, match="leaves out or repeats this image") as refused:
        marks.remove_from(rendered(marks, template), [])

    assert refused.value.param == "cat"


TYPED = """{% for message in messages %}<|{{ message.role }}|>{% for part in message.content %}\
{% if part.type == "image" %}<|image_pad|>{% else %}{{ part.text | trim }}{% endif %}{% endfor %}\
<|end|>{% endfor %}"""
PLAIN = (
    "{% for message in messages %}<|{{ message.role }}|>{{ message.content }}<|end|>{% endfor %}"
)


@pytest.mark.parametrize("source", [TYPED, PLAIN])
def test_template_renders_images_at_their_text_position(source):
    cat = image("cat")
    marks = Marks([{"role": "user", "content": ["What is <|end|>", cat, "?"]}])
    guard = ControlTokenGuard(["<|end|>", "<|user|>", "<|image_pad|>"])

    signed = ChatTemplate(source).render(marks.messages, guard=guard)
    placed = marks.remove_from(*guard.unescape(signed))

    assert placed.text == "<|user|>What is <|end|>?<|end|>"
    assert placed.media == [(len("<|user|>What is <|end|>"), cat)]
    assert placed.cuts == [len("<|user|>What is <")]


@pytest.mark.parametrize("source", [TYPED, PLAIN])
def test_work_grows_as_the_number_of_images_and_control_tokens(source):
    guard, template = ControlTokenGuard(["<|end|>"]), ChatTemplate(source)

    def render(count: int):
        images = [image(str(number)) for number in range(count)]
        parts = [part for one in images for part in (one, "<|end|>")]

        def place():
            marks = Marks([{"role": "user", "content": parts}])
            signed = template.render(marks.messages, guard=guard)
            assert len(marks.remove_from(*guard.unescape(signed)).media) == count

        return place

    assert growth(render, 128) < 3
