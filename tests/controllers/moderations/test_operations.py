"""Moderations: the model that judges, the inputs, and answers as scores."""

import asyncio
from types import SimpleNamespace
from typing import Any, Self

import pytest

from llm_backend.backends.base import Chat, TextDelta
from llm_backend.backends.local.chat_template import ChatTemplate
from llm_backend.backends.upstream.config import UpstreamConfig
from llm_backend.backends.upstream.upstream_routing import UpstreamRouting
from llm_backend.controllers.moderations.categories import (
    CATEGORIES,
    IMAGE_CATEGORIES,
    ModerationInput,
    question_builder,
)
from llm_backend.controllers.moderations.operations import (
    MAX_CONCURRENT_QUESTIONS,
    moderate,
    moderation_model_name,
)
from llm_backend.engine.messages import Priority, TokenLogprob
from llm_backend.errors import (
    ContextLengthExceeded,
    InvalidRequest,
    ServiceUnavailable,
    Unsupported,
)
from tests.gateway import backend, gateway
from tests.upstream import FakeUpstream, post


class Judge:
    """Finds harm where a text holds the name of its kind; remembers how it was asked."""

    card = SimpleNamespace(id="judge")

    def __init__(self, failure: Exception | None = None, *, accepts_images: bool = False) -> None:
        self.failure = failure
        self.accepts_images = accepts_images
        self.asked: list[Chat] = []
        self.busy = self.most_busy = 0

    def as_personality(self, name: str | None) -> Self:
        assert name is None
        return self

    def with_meter(self, meter: object) -> Self:
        return self

    async def template(self) -> ChatTemplate:
        return ChatTemplate(None)

    async def chat(self, chat: Chat) -> "Verdict":
        self.asked.append(chat)
        if self.failure is not None:
            raise self.failure
        question = chat.messages[0]["content"]
        if not isinstance(question, str):
            question = "".join(one if isinstance(one, str) else one.url for one in question)
        text = question.split("<text>\n")[1].split("\n</text>")[0]
        kind = question.rsplit('"', 2)[1]
        return Verdict(self, kind in text.split())


class Verdict:
    """Nine parts of ten for what is right."""

    def __init__(self, judge: Judge, is_yes: bool) -> None:
        self.judge, self.is_yes = judge, is_yes

    async def __aenter__(self) -> Self:
        self.judge.busy += 1
        self.judge.most_busy = max(self.judge.most_busy, self.judge.busy)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.judge.busy -= 1

    async def text_deltas(self):
        await asyncio.sleep(0)
        right, wrong = (b"Yes", b"No") if self.is_yes else (b"No", b"Yes")
        top = [
            TokenLogprob(token=1, bytes=right, logprob=-0.1053605),
            TokenLogprob(token=2, bytes=wrong, logprob=-2.3025851),
        ]
        yield TextDelta(choice=0, logprobs=[TokenLogprob(token=1, bytes=right, logprob=0, top=top)])


class Models:
    """Knows one model, by two names."""

    def __init__(self, *, accepts_images: bool) -> None:
        self._accepts_images = accepts_images

    def is_own_name(self, name: str) -> bool:
        return name in ("judge", "text-moderation-stable")

    def for_model(self, name: str) -> Judge:
        return Judge(accepts_images=self._accepts_images)


def services(
    configured: str | None = None, has_upstream: bool = False, *, accepts_images: bool = False
) -> Any:
    return SimpleNamespace(
        settings=SimpleNamespace(moderation_model=configured),
        registry=Models(accepts_images=accepts_images),
        upstreams=object() if has_upstream else None,
    )


async def judged(given: object, judge: Judge | None = None) -> Any:
    return await moderate(judge or Judge(), {"input": given}, inputs_limit=4)


@pytest.mark.parametrize(
    ("name", "configured", "has_upstream", "who"),
    [
        ("judge", None, False, "judge"),
        (None, "judge", False, "judge"),
        ("omni-moderation-latest", "judge", True, "judge"),
        ("text-moderation-stable", None, False, "text-moderation-stable"),
        (None, None, True, "omni-moderation-latest"),
        ("another", "judge", True, "another"),
    ],
)
def test_openais_names_mean_the_configured_model(name, configured, has_upstream, who):
    assert (
        moderation_model_name(services(configured, has_upstream), {"model": name, "input": "a"})
        == who
    )


IMAGE = {"type": "image_url", "image_url": {"url": "https://example.com/cat.png"}}


@pytest.mark.parametrize(
    ("models", "name", "who"),
    [
        (("omni-moderation*",), None, "omni-moderation-latest"),
        (("gpt*",), None, "judge"),
        (("omni-moderation*",), "judge", "judge"),
    ],
)
def test_an_image_is_the_upstreams_that_can_judge_it(models, name, who):
    services_of = services("judge", has_upstream=True)
    config = UpstreamConfig(name="a", base_url="http://a/v1", models=models)
    services_of.upstreams = UpstreamRouting([config], {})

    assert moderation_model_name(services_of, {"model": name, "input": [IMAGE]}) == who


def test_an_image_stays_here_where_the_judge_accepts_images():
    services_of = services("judge", has_upstream=True, accepts_images=True)

    assert moderation_model_name(services_of, {"input": [IMAGE]}) == "judge"


def test_moderation_without_a_model_names_the_setting():
    with pytest.raises(Unsupported, match="moderation_model"):
        moderation_model_name(services(), {})


async def test_every_kind_is_judged_of_every_text():
    answer = await judged(["hello", "violence hate/threatening"])

    kind, harmful = answer["results"]
    assert answer["model"] == "judge"
    assert answer["id"].startswith("modr-")
    assert (kind["flagged"], harmful["flagged"]) == (False, True)
    assert not any(kind["categories"].values())
    found = {name for name, is_found in harmful["categories"].items() if is_found}
    assert found == {"violence", "hate/threatening"}
    assert harmful["category_scores"]["violence"] == pytest.approx(0.9, abs=1e-6)
    assert harmful["category_scores"]["sexual"] == pytest.approx(0.1, abs=1e-6)
    assert harmful["category_applied_input_types"] == {name: ["text"] for name in CATEGORIES}


async def test_parts_are_judged_as_one_text():
    parts = [{"type": "text", "text": "violence"}, {"type": "text", "text": "sexual"}]
    (result,) = (await judged(parts))["results"]

    assert result["categories"]["violence"]
    assert result["categories"]["sexual"]


async def test_an_image_is_judged_with_its_text_of_the_kinds_that_can_be_seen():
    image = {"type": "image_url", "image_url": {"url": " violence hate "}}
    (result,) = (
        await judged([{"type": "text", "text": "harassment"}, image], Judge(accepts_images=True))
    )["results"]

    found = {kind for kind, is_found in result["categories"].items() if is_found}
    assert found == {"harassment", "violence"}
    assert result["category_applied_input_types"] == {
        kind: ["text", "image"] if kind in IMAGE_CATEGORIES else ["text"] for kind in CATEGORIES
    }


async def test_an_image_alone_is_of_no_kind_that_cannot_be_seen():
    image = {"type": "image_url", "image_url": {"url": " hate "}}
    asked = Judge(accepts_images=True)
    (result,) = (await judged([image], asked))["results"]

    assert result["category_scores"]["hate"] == 0
    assert result["category_applied_input_types"]["hate"] == []
    assert len(asked.asked) == len(IMAGE_CATEGORIES)


async def test_moderation_questions_share_a_prefix():
    judge = Judge()
    await judged("some text", judge)
    questions = [chat.messages[0]["content"] for chat in judge.asked]

    beginning = questions[0].partition("</text>")[0]
    assert len(questions) == len(set(questions)) == len(CATEGORIES)
    assert all(question.startswith(beginning) for question in questions)


async def test_concurrent_questions_of_a_moderation_are_bounded():
    judge = Judge()
    await moderate(judge, {"input": ["a"] * 4}, inputs_limit=4, priority=Priority.BATCH)

    assert judge.most_busy <= MAX_CONCURRENT_QUESTIONS
    assert {chat.priority for chat in judge.asked} == {Priority.BATCH}


@pytest.mark.parametrize(
    ("given", "param"),
    [
        ([], "input"),
        (["a"] * 5, "input"),
        (
            [
                {"type": "text", "text": "a"},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}},
            ],
            "input[1].image_url",
        ),
    ],
)
async def test_invalid_moderation_inputs_are_refused_by_name(given, param):
    with pytest.raises(InvalidRequest) as caught:
        await judged(given)

    assert (caught.value.status, caught.value.param) == (400, param)


async def test_a_text_that_is_too_long_is_named():
    judge = Judge(ContextLengthExceeded("Too long.", param="messages"))
    with pytest.raises(ContextLengthExceeded) as caught:
        await judged(["a", "b"], judge)

    assert caught.value.param == "input[0]"


async def test_the_first_failure_is_the_answer():
    with pytest.raises(ServiceUnavailable, match="The queue is full"):
        await judged("a", Judge(ServiceUnavailable("The queue is full.")))


async def test_an_upstreams_moderation_gets_the_body_as_it_is(tmp_path):
    body = b'{"input": "a",  "x": 1.50}'
    said = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"
    async with FakeUpstream(answer=said) as upstream:
        backends = [backend(upstream, "a", "omni-moderation*")]
        async with gateway(tmp_path, backends=backends) as served:
            answer = await served.ask(post(body, path="/v1/moderations"))

    assert (answer.status, answer.body) == (200, b"{}")
    assert [request.body for request in upstream.requests] == [body]


GUARDS = """
{% if categories is not defined %}{% set categories = {"S1": "Violent Crimes."} %}{% endif %}
Is it unsafe?
<BEGIN UNSAFE CONTENT CATEGORIES>
{% for key in categories %}{{ key + ": " + categories[key] }}
{% endfor %}<END UNSAFE CONTENT CATEGORIES>
{% for message in messages %}{% for part in message.content if part.type == "text" %}{{ part.text }}
{% endfor %}{% endfor %}"""
FIXED = "<BEGIN UNSAFE CONTENT CATEGORIES>\nS1: Crimes.\n<END>{{ messages[0].content }}"


def test_a_guard_gets_one_category_a_prompt_through_its_template():
    template = ChatTemplate(GUARDS)
    asked = question_builder(template)(ModerationInput(text="Hello"), "violence")
    read = template.render([{"role": "user", "content": asked.content}], [], asked.template_kwargs)

    assert asked.content == "Hello"
    assert (asked.words.yes, asked.words.no) == (("unsafe",), ("safe",))
    assert f"S1: violence. The text {CATEGORIES['violence']}." in read
    assert "Violent Crimes" not in read
    assert "Hello" in read


def test_a_guard_with_categories_of_its_own_is_refused():
    with pytest.raises(InvalidRequest, match="categories of its own") as caught:
        question_builder(ChatTemplate(FIXED))

    assert caught.value.param == "model"
