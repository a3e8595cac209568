"""Settings of a model in the config file reach its answers."""

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import httpx
import openai
import pytest
import yaml

from llm_backend.backends.base import Chat, ModelCard
from llm_backend.backends.local.local_model import LocalModel
from llm_backend.backends.local.model_manager import LocalModelManager
from llm_backend.builtin import BUILTIN_PATH
from llm_backend.engine import EngineClient, EngineConfig
from tests.engine.gguf_models import write_adapter, write_llama
from tests.serving import Served, serve
from tests.strict_sdk import StrictOpenAI

CONFIG = {
    "models": [
        {
            "path": "builtin",
            "id": "small",
            "aliases": ["gpt-4"],
            "personalities": {"pirate": "You are a pirate and say so in every sentence."},
            "defaults": {"max_tokens": 3, "temperature": 0, "stop": ["!"]},
            "context_tokens": 256,
            "slots": 2,
            "mmap": False,
        },
        {"path": "builtin", "id": "framed", "chat_template": "vicuna-1.1-chat", "slots": 2},
    ]
}

SPELLER_TEMPLATE = """{% for m in messages -%}
{{ m.content }}{{ "<|im_start|>" if m.role == "user" else "<|im_end|>" }}
{%- endfor %}"""
"""Of a model whose answers are not the tokens that its tokenizer makes of them."""


@pytest.fixture(scope="module")
def configured(tmp_path_factory) -> Iterator[Served]:
    folder: Path = tmp_path_factory.mktemp("configured")
    tiny = {
        "path": str(write_llama(folder / "tiny.gguf")),
        "aliases": ["gpt-5"],
        "slots": 1,
        "flash_attention": False,  # of random weights: a rounding is another answer
        "adapters": {"poet": {"path": str(write_adapter(folder / "poet.gguf")), "scale": 0.5}},
        "defaults": {"temperature": 0, "max_tokens": 8},
    }
    says, shape = ["cats", "dogs", "hats", "that"], {"slots": 1, "context_tokens": 128}
    file = write_llama(folder / "speller.gguf", says=says, template=SPELLER_TEMPLATE)
    speller = {**shape, "id": "speller", "path": str(file)}
    (folder / "yes.lark").write_text('start: "Yes." | "No."')
    framed = {**CONFIG["models"][1], "grammar_file": str(folder / "yes.lark")}
    config = {"models": [CONFIG["models"][0], framed, tiny, speller]}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    with serve(folder / "data", "--config", str(folder / "config.yaml")) as served:
        yield served


@pytest.fixture
def ask(configured) -> Iterator[openai.OpenAI]:
    with StrictOpenAI(base_url=configured.base_url, api_key="none", max_retries=0) as one:
        yield one


def test_every_name_is_listed(ask):
    listed = {model.id: model.model_extra or {} for model in ask.models.list()}

    assert set(listed) == {
        "small", "gpt-4", "small:pirate", "framed", "tiny", "gpt-5", "tiny:poet", "gpt-5:poet",
        "speller",
    }  # fmt: skip
    assert listed["tiny:poet"]["adapter_of"] == "tiny"
    assert listed["small:pirate"]["personality_of"] == "small"
    assert listed["gpt-4"]["personalities"] == ["pirate"]


def test_a_personality_is_a_system_message_where_the_request_has_none(ask):
    def tokens(model: str, *roles: str) -> int:
        messages = [{"role": role, "content": "Hi"} for role in roles]
        answer = ask.chat.completions.create(model=model, messages=messages, max_tokens=1)
        assert answer.model == model
        return answer.usage.prompt_tokens

    plain, own = tokens("small", "user"), tokens("small", "system", "user")

    assert tokens("small:pirate", "user") > plain
    assert tokens("gpt-4:pirate", "user") == tokens("small:pirate", "user")
    assert tokens("small:pirate", "system", "user") == own
    assert tokens("small:pirate", "developer", "user") == own


def test_a_chat_may_name_its_personality_itself(ask):
    def tokens(model: str, personality: str | None) -> int:
        answer = ask.chat.completions.create(
            model=model, messages=[{"role": "user", "content": "Hi"}], max_tokens=1,
            extra_body={"personality": personality},
        )  # fmt: skip
        return answer.usage.prompt_tokens

    assert tokens("small", "pirate") == tokens("small:pirate", None) > tokens("small", None)
    with pytest.raises(openai.BadRequestError, match="it has: pirate") as refused:
        tokens("small", "poet")
    assert refused.value.param == "personality"


def test_model_defaults_fill_missing_fields(ask):
    def answer(**more: object) -> tuple[int, str]:
        done = ask.chat.completions.create(
            model="small", messages=[{"role": "user", "content": "How many models are there?"}],
            **more,
        )  # fmt: skip
        return done.usage.completion_tokens, done.choices[0].finish_reason

    assert answer() == (3, "length")
    assert answer(max_tokens=2) == (2, "length")
    assert answer(max_completion_tokens=5) == (5, "length")
    done = ask.completions.create(model="small", prompt="What is")
    assert done.usage.completion_tokens <= 3
    response = ask.responses.create(model="small", input="How many models are there?")
    assert response.usage.output_tokens == 3
    assert (response.status, response.incomplete_details.reason) == (
        "incomplete",
        "max_output_tokens",
    )


def test_a_named_chat_template_stands_for_the_models_own(ask):
    def tokens(model: str) -> int:
        counted = ask.responses.input_tokens.count(model=model, input="Hi")
        return counted.input_tokens

    assert tokens("framed") != tokens("small")
    with pytest.raises(openai.BadRequestError, match="knows no tools"):
        ask.chat.completions.create(
            model="framed",
            messages=[{"role": "user", "content": "Hi"}],
            tools=[{"type": "function", "function": {"name": "f"}}],
        )


def test_an_adapter_is_chosen_with_the_model_and_loaded_when_it_is(ask):
    def answer(model: str) -> str | None:
        done = ask.chat.completions.create(
            model=model, messages=[{"role": "user", "content": "Hi"}]
        )
        return done.choices[0].message.content

    def status(model: str) -> object:
        return (ask.models.retrieve(model).model_extra or {})["status"]

    def told() -> set[str]:
        lines = httpx.get(str(ask.base_url).replace("/v1/", "/metrics")).text.splitlines()
        (line,) = [one for one in lines if one.startswith("vllm:lora_requests_info{")]
        return set(line.partition("{")[2].partition("}")[0].split('",'))

    assert status("tiny:poet") == "unloaded"
    assert 'running_lora_adapters="' in told()
    plain, adapted = answer("tiny"), answer("gpt-5:poet")

    assert plain != adapted
    assert status("tiny:poet") == "loaded"
    assert 'running_lora_adapters="tiny:poet' in told()
    assert answer("tiny") == plain


def test_the_models_grammar_holds_unless_the_request_has_a_format(ask):
    def answer(**more: object) -> str:
        done = ask.chat.completions.create(
            model="framed", messages=[{"role": "user", "content": "Is it so?"}],
            max_tokens=20, temperature=0, **more,
        )  # fmt: skip
        return done.choices[0].message.content or ""

    assert answer() in ("Yes.", "No.")
    assert answer(extra_body={"grammar": 'start: "Maybe."'}) == "Maybe."
    assert answer(response_format={"type": "json_object"}).startswith("{")
    assert ask.responses.create(model="framed", input="Is it so?").output_text in ("Yes.", "No.")


def test_an_answer_that_comes_back_is_not_computed_again(ask):
    messages, usages = [], []
    for question in ("the rat", "on the mat", "in the rain"):
        messages.append({"role": "user", "content": question})
        done = ask.chat.completions.create(model="speller", messages=messages, temperature=0)
        messages.append({"role": "assistant", "content": done.choices[0].message.content})
        usages.append(done.usage)

    assert messages[-1]["content"] == "catsdogshatsthat"
    for earlier, later in pairwise(usages):
        assert later.prompt_tokens_details.cached_tokens == earlier.total_tokens


async def test_a_question_of_the_servers_own_has_no_personality():
    manager = LocalModelManager()
    card = ModelCard(id="m", created_at=1, owned_by="test")
    config = EngineConfig(model_path=BUILTIN_PATH, slots=1, context_tokens=128, threads=1)

    async def estimate_bytes() -> int:
        return 0

    handle = manager.add_model("m", lambda _path: EngineClient(config), estimate_bytes)
    model = LocalModel(card, handle, personalities={"p": "Speak like a poet."}, personality="p")
    hi = [{"role": "user", "content": "Hi"}]
    async with manager:
        told = await model.count_prompt_tokens(Chat(messages=hi))
        own = await model.count_prompt_tokens(Chat(messages=hi, has_personality=False))

    assert own < told
