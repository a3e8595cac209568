"""Anthropic's own client over a local model, and over an upstream that answers chats."""

import time
from collections.abc import Iterator
from typing import Any

import anthropic
import httpx
import pytest
import yaml

from tests.serving import Served, serve
from tests.strict_sdk import StrictOpenAI

KEY = "sk-client"
EXACT = {"temperature": 0}  # the package has no parameter for it

HELLO: list[anthropic.types.MessageParam] = [{"role": "user", "content": "Hello, who are you?"}]
WEATHER: anthropic.types.ToolParam = {
    "name": "get_weather",
    "description": "Weather of a city",
    "input_schema": {
        "type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"],
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def gateway(server: Served, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server with the built-in model as `near`, and another server's as `gpt-3.5-turbo`, which is
    asked for chats, and as `builtin`, which is asked for messages."""
    backends = [
        {"name": "chats", "base_url": server.base_url, "models": ["gpt-3.5-turbo"]},
        {"name": "messages", "base_url": server.base_url, "kind": "anthropic",
         "models": ["builtin"]},
    ]  # fmt: skip
    config = {
        "models": [{"path": "builtin", "id": "near"}],
        "backends": backends,
        "context_shift_tokens": 10_000_000,
    }
    folder = tmp_path_factory.mktemp("gateway")
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    environment = {"LLM_BACKEND_API_KEYS": KEY}
    with serve(folder, "--config", str(folder / "config.yaml"), environment=environment) as served:
        yield served


@pytest.fixture
def messages(gateway: Served) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=gateway.address, api_key=KEY, max_retries=0) as client:
        yield client


@pytest.mark.parametrize("model", ["near", "gpt-3.5-turbo"])
def test_message_is_the_same_whole_and_streamed_and_is_stored_as_a_chat(
    gateway: Served, messages: anthropic.Anthropic, model: str
) -> None:
    whole = messages.messages.create(
        model=model, max_tokens=40, extra_body=EXACT, messages=HELLO, system="Be brief."
    )
    with messages.messages.stream(
        model=model, max_tokens=40, extra_body=EXACT, messages=HELLO, system="Be brief."
    ) as stream:
        streamed = stream.get_final_message()

    assert (whole._request_id or "").startswith("req_")
    assert whole.stop_reason == streamed.stop_reason == "end_turn"
    assert whole.content[0].type == streamed.content[0].type == "text"
    assert whole.content[0].text == streamed.content[0].text
    assert "built-in model" in whole.content[0].text
    used = streamed.usage.input_tokens + (streamed.usage.cache_read_input_tokens or 0)
    assert used == whole.usage.input_tokens + (whole.usage.cache_read_input_tokens or 0) > 0
    with StrictOpenAI(base_url=gateway.base_url, api_key=KEY) as client:
        chats = client.chat.completions.list(model=model, limit=1, order="desc").data
    assert chats[0].choices[0].message.content == whole.content[0].text


@pytest.mark.parametrize(
    ("model", "told"),
    [("near", ("stop_sequence", "built-in")), ("gpt-3.5-turbo", ("end_turn", None))],
)
def test_stop_sequence_that_a_local_model_met_is_reported(
    messages: anthropic.Anthropic, model: str, told: tuple[str, str | None]
) -> None:
    stops = ["never met", "built-in"]
    whole = messages.messages.create(
        model=model, max_tokens=40, extra_body=EXACT, messages=HELLO, stop_sequences=stops
    )
    with messages.messages.stream(
        model=model, max_tokens=40, extra_body=EXACT, messages=HELLO, stop_sequences=stops
    ) as stream:
        streamed = stream.get_final_message()

    assert (whole.stop_reason, whole.stop_sequence) == told
    assert (streamed.stop_reason, streamed.stop_sequence) == told
    assert whole.content[0].type == "text"
    assert "built-in" not in whole.content[0].text


@pytest.mark.parametrize("model", ["near", "gpt-3.5-turbo"])
def test_tool_is_called_and_its_result_is_read(messages: anthropic.Anthropic, model: str) -> None:
    asked: list[anthropic.types.MessageParam] = [{"role": "user", "content": "Weather in Rome?"}]
    with messages.messages.stream(
        model=model,
        max_tokens=60,
        extra_body=EXACT,
        messages=asked,
        tools=[WEATHER],
        tool_choice={"type": "tool", "name": "get_weather"},
    ) as stream:
        call = stream.get_final_message()

    assert call.stop_reason == "tool_use"
    block = call.content[-1]
    assert block.type == "tool_use"
    assert set(block.input) == {"city"}
    result: anthropic.types.ToolResultBlockParam = {
        "type": "tool_result", "tool_use_id": block.id, "content": "sunny",
    }  # fmt: skip
    asked += [
        {"role": "assistant", "content": call.content},
        {"role": "user", "content": [result]},
    ]
    answered = messages.messages.create(
        model=model, max_tokens=30, tools=[WEATHER], messages=asked, extra_body=EXACT
    )
    assert answered.content[0].type == "text"
    assert "sunny" in answered.content[0].text


def test_tokens_are_counted_as_the_message_reads_them(messages: anthropic.Anthropic) -> None:
    counted = messages.messages.count_tokens(model="near", messages=HELLO, tools=[WEATHER])
    answer = messages.messages.create(
        model="near", max_tokens=1, messages=HELLO, tools=[WEATHER], tool_choice={"type": "auto"}
    )

    used = answer.usage.input_tokens + (answer.usage.cache_read_input_tokens or 0)
    assert counted.input_tokens == used


def test_errors_have_anthropics_shape(gateway: Served, messages: anthropic.Anthropic) -> None:
    with pytest.raises(anthropic.BadRequestError, match="max_tokens"):
        messages.messages.create(model="near", max_tokens=0, messages=HELLO)
    with pytest.raises(anthropic.BadRequestError, match="model of an upstream"):
        messages.messages.count_tokens(model="gpt-3.5-turbo", messages=HELLO)
    with (
        anthropic.Anthropic(base_url=gateway.address, api_key="sk-no", max_retries=0) as stranger,
        pytest.raises(anthropic.AuthenticationError) as refused,
    ):
        stranger.messages.create(model="near", max_tokens=5, messages=HELLO)
    assert refused.value.body["error"]["type"] == "authentication_error"
    origin = {"origin": "http://evil.example", "sec-fetch-site": "cross-site", "x-api-key": KEY}
    answer = httpx.post(f"{gateway.base_url}/messages", headers=origin, json={})
    assert answer.status_code == 403
    assert answer.json()["error"]["type"] == "permission_error"


def test_messages_can_be_switched_off(tmp_path) -> None:
    with (
        serve(tmp_path, environment={"LLM_BACKEND_MESSAGES_API": "false"}) as served,
        anthropic.Anthropic(base_url=served.address, api_key="none", max_retries=0) as client,
        pytest.raises(anthropic.APIStatusError, match="messages_api") as refused,
    ):
        client.messages.create(model="builtin", max_tokens=5, messages=HELLO)
    assert refused.value.status_code == 501


@pytest.mark.parametrize("model", ["near", "gpt-3.5-turbo", "builtin"])
def test_beta_requests_of_a_coding_agent_are_answered(
    messages: anthropic.Anthropic, model: str
) -> None:
    """With `?beta=true`, a cached system prompt in blocks, system messages between those of the
    user, and hints for models that reason."""
    cached: Any = {"cache_control": {"type": "ephemeral"}}
    shape: Any = {
        "model": model,
        "system": [
            {"type": "text", "text": "An agent."},
            {"type": "text", "text": "Be brief.", **cached},
        ],
        "messages": [
            {"role": "user", "content": [
                {"type": "text", "text": "<note>A date.</note>"},
                {"type": "text", "text": "Hello, who are you?", **cached},
            ]},
            {"role": "system", "content": "Be kind."},
        ],
        "tools": [WEATHER],
        "thinking": {"type": "adaptive"},
        "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
    }  # fmt: skip
    effort: Any = {"output_config": {"effort": "high"}} if model == "near" else {}
    betas = ["context-management-2025-06-27"]
    with messages.beta.messages.stream(
        **shape, **effort, max_tokens=32, metadata={"user_id": "u"}, betas=betas
    ) as stream:
        message = stream.get_final_message()

    assert message.usage.output_tokens > 0
    if model != "gpt-3.5-turbo":
        counted = messages.beta.messages.count_tokens(**shape, **effort, betas=betas)
        assert counted.input_tokens > 0


def test_edits_that_shorten_the_messages_are_refused(messages: anthropic.Anthropic) -> None:
    edits: Any = {"edits": [{"type": "clear_tool_uses_20250919"}]}
    with pytest.raises(anthropic.BadRequestError, match=r"context_management\.edits\[0\]\.type"):
        messages.beta.messages.create(
            model="near", max_tokens=5, messages=HELLO, context_management=edits
        )


def test_begun_answer_is_refused(messages: anthropic.Anthropic) -> None:
    begun: list[anthropic.types.MessageParam] = [
        *HELLO, {"role": "assistant", "content": "{"}
    ]  # fmt: skip
    with pytest.raises(anthropic.BadRequestError, match="cannot continue"):
        messages.messages.create(model="near", max_tokens=5, messages=begun)


def test_prefix_that_is_cached_is_counted_apart(messages: anthropic.Anthropic) -> None:
    asked: list[anthropic.types.MessageParam] = [
        {"role": "user", "content": "Say which of these words is a number: one, two, heron."}
    ]
    first, again = (
        messages.messages.create(model="near", max_tokens=1, messages=asked).usage for _ in range(2)
    )

    cached = again.cache_read_input_tokens or 0
    assert cached > 0
    assert again.input_tokens + cached == (
        first.input_tokens + (first.cache_read_input_tokens or 0)
    )


def test_client_that_leaves_ends_its_generation(
    gateway: Served, messages: anthropic.Anthropic
) -> None:
    numbers = {"type": "array", "items": {"enum": [1, 2]}, "minItems": 10_000_000}
    form: anthropic.types.OutputConfigParam = {"format": {"type": "json_schema", "schema": numbers}}
    with messages.messages.stream(
        model="near", max_tokens=10_000_000, messages=HELLO, output_config=form
    ) as stream:
        next(stream.text_stream)

    with StrictOpenAI(base_url=gateway.base_url, api_key=KEY) as client:

        def is_cut() -> bool:
            chats = client.chat.completions.list(model="near", limit=1, order="desc").data
            return bool(chats) and (chats[0].choices[0].message.content or "").startswith("[")

        deadline = time.monotonic() + 120
        while not is_cut():
            assert time.monotonic() < deadline
            time.sleep(0.02)


def test_rate_limit_is_a_429_of_anthropics(gateway: Served) -> None:
    with StrictOpenAI(base_url=gateway.base_url, api_key=KEY, admin_api_key=KEY) as client:
        projects = client.admin.organization.projects
        project = projects.create(name="limited").id
        key = projects.service_accounts.create(project, name="app").api_key.value
        projects.rate_limits.update_rate_limit(
            "rl-near", project_id=project, max_requests_per_1_minute=1
        )
    with anthropic.Anthropic(base_url=gateway.address, api_key=key, max_retries=0) as limited:
        limited.messages.create(model="near", max_tokens=1, messages=HELLO)
        with pytest.raises(anthropic.RateLimitError) as refused:
            limited.messages.create(model="near", max_tokens=1, messages=HELLO)

    assert refused.value.body["error"]["type"] == "rate_limit_error"
    assert int(refused.value.response.headers["retry-after"]) > 0


def test_upstream_of_messages_counts_tokens_and_answers(messages: anthropic.Anthropic) -> None:
    counted = messages.messages.count_tokens(model="builtin", messages=HELLO, tools=[WEATHER])
    own = messages.messages.count_tokens(model="near", messages=HELLO, tools=[WEATHER])
    answer = messages.messages.create(model="builtin", max_tokens=40, messages=HELLO)

    assert counted.input_tokens == own.input_tokens > 0
    assert answer.content[0].type == "text"
    assert "built-in model" in answer.content[0].text


@pytest.mark.parametrize("model", ["near", "gpt-3.5-turbo"])
def test_unknown_field_is_refused_by_its_path(messages: anthropic.Anthropic, model: str) -> None:
    tool: anthropic.types.ToolParam = {**WEATHER, "defer_loading": True}
    with pytest.raises(anthropic.BadRequestError, match=r"tools\[0\]\.defer_loading"):
        messages.messages.create(model=model, max_tokens=5, messages=HELLO, tools=[tool])


def test_refused_schema_is_named_by_its_place(messages: anthropic.Anthropic) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "string", "format": "regex"}}}
    fields: Any = (
        {"tools": [{"name": "f", "input_schema": {"type": "object"}},
                   {"name": "g", "input_schema": schema, "strict": True}]},
        {"output_config": {"format": {"type": "json_schema", "schema": schema}}},
    )  # fmt: skip
    refusals = []
    for one in fields:
        with pytest.raises(anthropic.BadRequestError) as refused:
            messages.messages.create(model="near", max_tokens=4, messages=HELLO, **one)
        refusals.append(refused.value.body["error"]["message"])

    assert refusals[0].endswith("(`tools[1].input_schema.properties.a.format`)")
    assert refusals[1].endswith("(`output_config.format.schema.properties.a.format`)")


def test_models_are_listed(messages: anthropic.Anthropic) -> None:
    page = messages.models.list(limit=100)
    one_by_one = [model.id for model in messages.models.list(limit=1)]
    before = messages.models.list(before_id=page.data[-1].id, limit=1)
    with pytest.raises(anthropic.BadRequestError):
        messages.models.list(after_id="none")
    near = messages.models.retrieve("near")

    names = [model.id for model in page]
    assert one_by_one == names
    assert [model.id for model in before.data] == names[-2:-1]
    assert before.has_more
    assert {"near", "gpt-3.5-turbo", "builtin"} <= set(names)
    assert (page.has_more, page.first_id, page.last_id) == (False, names[0], names[-1])
    assert near == next(model for model in page.data if model.id == "near")
    assert (near.type, near.display_name) == ("model", "near")
    assert near.created_at.tzinfo is not None
