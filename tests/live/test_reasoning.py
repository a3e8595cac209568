"""Reasoning, from a model whose template knows it to the official client and the store.

The built-in model does not reason. Here it carries a template that does, and a grammar makes it
write what a reasoning model would.
"""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import anthropic
import openai
import pytest
import yaml

from llm_backend.builtin import BUILTIN_PATH
from tests.response_events import check_events
from tests.serving import serve
from tests.strict_sdk import StrictOpenAI

TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{% if message.reasoning_content %}<think>{{ message.reasoning_content }}</think>{% endif %}"
    "{{ message.content }}<|im_end|>\n{% endfor %}<|im_start|>assistant\n"
)
SWITCH = "{% if enable_thinking is defined and enable_thinking %}<think>\n{% endif %}"
HELLO = {"role": "user", "content": "Hello!"}
THINKS = {"grammar": 'start: "<think>\\nHm, easy.\\n</think>\\n\\nHello, " /[a-z]{3}/'}


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[openai.OpenAI]:
    folder = tmp_path_factory.mktemp("reasoning")
    model = with_template(folder / "thinker.gguf", TEMPLATE + SWITCH)
    always = with_template(folder / "always.gguf", TEMPLATE)
    (folder / "thinks.lark").write_text(THINKS["grammar"])
    thoughtful = {"id": "thoughtful", "grammar_file": str(folder / "thinks.lark")}
    models = [
        {"path": str(model)},
        {"path": str(model), "slots": 2, **thoughtful},
        {"path": str(always), "slots": 1, **thoughtful, "id": "always"},
    ]
    (folder / "config.yaml").write_text(yaml.safe_dump({"models": models}))
    with (
        serve(folder, "--config", str(folder / "config.yaml")) as served,
        StrictOpenAI(base_url=served.base_url, api_key="none", max_retries=0) as one,
    ):
        yield one


def with_template(file: Path, template: str) -> Path:
    """Writes the built-in model with another chat template."""
    command = [sys.executable, "-m", "gguf.scripts.gguf_new_metadata", "--chat-template", template]
    subprocess.run([*command, str(BUILTIN_PATH), str(file)], check=True, capture_output=True)
    return file


SPOKEN = ("reasoning_content", "content")  # in this order


def test_reasoning_is_apart_from_the_answer_and_counted(client):
    answer = client.chat.completions.create(
        model="thinker", messages=[HELLO], temperature=0, extra_body=THINKS
    )

    message = answer.choices[0].message
    thought = answer.usage.completion_tokens_details.reasoning_tokens
    assert message.reasoning_content == "Hm, easy."
    assert message.content.startswith("Hello, ")
    assert 0 < thought < answer.usage.completion_tokens
    stored = client.chat.completions.retrieve(answer.id)
    assert stored.choices[0].message.to_dict()["reasoning_content"] == "Hm, easy."


def test_reasoning_is_streamed_as_it_is_answered(client):
    with client.chat.completions.create(
        model="thinker", messages=[HELLO], temperature=0, stream=True, extra_body=THINKS,
        logprobs=True,
    ) as stream:  # fmt: skip
        deltas = [chunk.choices[0].delta.to_dict() for chunk in stream]

    thought = [delta["reasoning_content"] for delta in deltas if "reasoning_content" in delta]
    said = [delta["content"] for delta in deltas if delta.get("content")]
    assert "".join(thought) == "Hm, easy."
    assert "".join(said).startswith("Hello, ")
    kinds = [kind for delta in deltas for kind in SPOKEN if delta.get(kind)]
    assert kinds == sorted(kinds, key=SPOKEN.index)  # in how many pieces depends on the reader


def test_reasoning_is_summed_up_by_the_model_itself(client):
    with client.responses.create(
        model="thoughtful", input="Hello!", temperature=0, reasoning={"summary": "concise"},
        stream=True,
    ) as stream:  # fmt: skip
        events = list(stream)

    thought, said = events[-1].response.output
    check_events([event.to_dict(warnings=False) for event in events])
    assert thought.content[0].text == "Hm, easy."
    assert "<think>" not in thought.summary[0].text
    assert said.content[0].text.startswith("Hello, ")


def test_reasoning_goes_back_to_the_template(client):
    spoken = {"role": "assistant", "content": "Hi."}
    counts = [
        client.chat.completions.create(
            model="thinker", messages=[HELLO, {**spoken, **thought}, HELLO], max_tokens=1
        ).usage.prompt_tokens
        for thought in ({}, {"reasoning_content": "Easy."})
    ]

    assert counts[1] > counts[0]


def test_an_answer_that_begins_in_reasoning_is_reasoning(client):
    answer = client.chat.completions.create(
        model="thinker", messages=[HELLO], max_tokens=6, temperature=0, reasoning_effort="high"
    )

    message, usage = answer.choices[0].message, answer.usage
    assert message.reasoning_content
    assert not message.content
    assert usage.completion_tokens_details.reasoning_tokens == usage.completion_tokens


def test_tools_for_a_template_without_tools_are_refused(client):
    tool = {"type": "function", "function": {"name": "f"}}
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model="thinker", messages=[HELLO], tools=[tool])
    assert caught.value.param == "tools"


def test_messages_show_reasoning_in_a_block_of_its_own_unless_it_is_omitted(client):
    address = str(client.base_url).removesuffix("/v1/")
    asked = {"model": "always", "max_tokens": 60, "messages": [HELLO]}
    thinking = {"type": "enabled", "budget_tokens": 1024}
    with anthropic.Anthropic(base_url=address, api_key="none", max_retries=0) as messages:
        whole = messages.messages.create(**asked, thinking=thinking)
        with messages.messages.stream(**asked, thinking=thinking) as stream:
            streamed = stream.get_final_message()
        unseen = messages.messages.create(**asked, thinking={**thinking, "display": "omitted"})

    assert [block.type for block in whole.content] == ["thinking", "text"]
    assert whole.content[0].thinking == streamed.content[0].thinking == "Hm, easy."
    assert whole.content[1].text.startswith("Hello, ")
    assert streamed.content[1].text.startswith("Hello, ")
    assert [block.type for block in unseen.content] == ["text"]
    assert unseen.usage.output_tokens > 6
