"""The server's own operations, against a served process."""

import json
from contextlib import suppress
from itertools import islice
from typing import Any

import httpx
import openai
import pytest

from llm_backend.contract import load_document
from tests.serving import WITHOUT_END, Served, serve
from tests.strict_sdk import StrictOpenAI


def get(server: Served, path: str, **query: object) -> httpx.Response:
    return httpx.get(f"{server.address}{path}", params=query)


def post(server: Served, path: str, **body: object) -> httpx.Response:
    return httpx.post(f"{server.base_url}{path}", json=body)


def test_a_ping_is_answered_with_pong(server):
    assert (get(server, "/ping").text, get(server, "/v1/ping").text) == ("pong", "pong")


def test_models_are_listed_by_post(server):
    listed = httpx.post(f"{server.base_url}/models")

    assert listed.json() == get(server, "/v1/models").json()


def test_info_lists_name_version_and_models(server):
    told = get(server, "/v1/info").json()

    (model,) = told["models"]
    assert (told["name"], told["has_upstream"]) == ("llm-backend", False)
    assert (model["id"], model["kind"], model["state"]) == ("builtin", "chat", "ready")
    assert model["parameters"] > 1_000_000
    assert model["description"] == "llama 2M Q8_0"
    assert model["size_bytes"] > model["parameters"] / 2


def test_operations_list_how_each_is_answered(server):
    rows = get(server, "/v1/operations").json()["data"]

    assert len(rows) == len(load_document().operations)
    chat = next(row for row in rows if row["operationId"] == "createChatCompletion")
    assert (chat["path"], chat["answered"]) == ("/chat/completions", "local")
    assert chat["summary"]


def test_the_status_stream_sends_the_state_and_its_changes(endless_server, endless_client):
    with httpx.stream("GET", f"{endless_server.address}/status", timeout=60) as stream:
        events = (json.loads(line[6:]) for line in stream.iter_lines() if line.startswith("data:"))
        first = next(events)
        with endless_client.chat.completions.create(
            model="builtin", messages=[{"role": "user", "content": "Hello!"}], stream=True,
            extra_body=WITHOUT_END,
        ) as chat:  # fmt: skip
            next(iter(chat))
            polls = islice(events, 100)  # each differs, by the engine's time
            during = next(one for one in polls if is_at_work(one))

    assert first["status"] in ("idle", "processing")
    assert first["models"][0]["slots"] == 8
    assert first["models"][0]["backend"]
    assert first["models"][0]["plan"].startswith("8 x 2,048 tokens, ")
    assert (during["status"], during["info"]) == ("processing", "1 running, 0 waiting.")
    assert during["models"][0]["work"]["generated_tokens"] > 0


def is_at_work(status: dict[str, Any]) -> bool:
    """True once the engine has generated a token, while it runs a request."""
    work = status["models"][0]["work"]
    return status["info"] == "1 running, 0 waiting." and work["generated_tokens"] > 0


def test_shutdown_ends_status_streams_with_an_event(tmp_path):
    environment = {"LLM_BACKEND_MODELS": "none", "LLM_BACKEND_SHUTDOWN_GRACE_S": "300"}
    with serve(tmp_path, environment=environment) as served:
        with httpx.stream("GET", f"{served.address}/status", timeout=60) as stream:
            lines = (line for line in stream.iter_lines() if line)
            next(lines)
            served.process.terminate()
            last = next(lines)

        assert '"status":"terminated"' in last
        assert served.process.wait(60) == 0


def test_errors_are_remembered_as_they_were_answered(server, client):
    with suppress(openai.BadRequestError):
        client.chat.completions.create(model="builtin", messages=[])
    refused = post(server, "/tokenize", model="builtin")

    latest, before = get(server, "/chat/errors").json()["data"][:2]
    assert latest["request_id"] == refused.headers["x-request-id"]
    assert (latest["operation"], latest["status"]) == ("tokenize", 400)
    assert latest["message"] == refused.json()["error"]["message"]
    assert before["operation"] == "createChatCompletion"


def test_a_question_is_answered_as_text_and_as_events(server):
    whole = get(server, "/chat/ask", question="Hello!")
    streamed = get(server, "/chat/ask", question="Hello!", stream="true")

    assert whole.headers["content-type"] == "text/plain; charset=utf-8"
    assert "server" in whole.text
    assert streamed.headers["content-type"].startswith("text/event-stream")
    assert streamed.text.rstrip().endswith("data: [DONE]")


def test_a_question_is_answered_as_json_for_clients_that_accept_it(server):
    answer = httpx.get(
        f"{server.address}/chat/ask",
        params={"question": "Hello!"},
        headers={"accept": "application/json"},
    ).json()

    assert answer["object"] == "chat.completion"
    assert "server" in answer["choices"][0]["message"]["content"]


def test_a_text_is_edited_and_a_prompt_is_counted_for_older_clients(server):
    fields = {"instruction": "Copy this: banana", "input": "Hello!", "n": 2}
    edit = post(server, "/edits", model="builtin", **fields).json()
    count = httpx.post(f"{server.address}/api/v1/token-count", json={"prompt": "Hello!"}).json()
    tokens = post(server, "/tokenize", model="builtin", text="Hello!").json()

    assert (edit["object"], len(edit["choices"])) == ("edit", 2)
    assert all(choice["text"] for choice in edit["choices"])
    assert edit["usage"]["completion_tokens"] > 0
    assert count == {"results": [{"tokens": tokens["count"]}]}


def test_older_paths_lead_to_those_of_today(server):
    body = {"model": "builtin", "messages": [{"role": "user", "content": "Hello!"}], "n_choice": 2}
    chat = post(server, "/chat/completion", **body).json()
    engines, engine = get(server, "/v1/engines").json(), get(server, "/v1/engines/builtin").json()

    assert len(chat["choices"]) == 2
    assert engine in engines["data"]
    assert engine["object"] == "model"


def test_an_engine_completes_as_the_model_of_its_name_does(server):
    body = {"prompt": "Hello!", "max_tokens": 2}
    done = post(server, "/engines/gpt-3.5-turbo/completions", **body)
    unknown = post(server, "/engines/a%2Fb/completions", **body)
    embedded = post(server, "/engines/builtin/embeddings", input="Hello!")
    today = post(server, "/embeddings", model="builtin", input="Hello!")

    assert (done.status_code, done.json()["model"]) == (200, "gpt-3.5-turbo")
    assert done.json()["choices"][0]["text"]
    assert "The model `a/b` does not exist" in unknown.json()["error"]["message"]
    assert (embedded.status_code, embedded.text) == (today.status_code, today.text)


@pytest.mark.parametrize("path", ["/chat/ask?question=Hello!", "/unloadModel"])
def test_requests_of_other_sites_are_refused(server, path):
    answer = httpx.get(f"{server.address}{path}", headers={"sec-fetch-site": "cross-site"})

    assert answer.status_code == 403


def test_a_text_becomes_tokens_and_a_text_again(server):
    text = "Grüße an alle, 1 + 2 = 3!"
    tokens = post(server, "/tokenize", model="builtin", text=text).json()
    back = post(server, "/detokenize", model="builtin", tokens=tokens["tokens"]).json()

    assert tokens["count"] == len(tokens["tokens"]) > 3
    assert back["text"] == text


def test_a_text_of_more_bytes_than_are_tokenized_is_refused(server):
    refused = post(server, "/tokenize", model="builtin", text="é" * 600_000)
    messages = [{"role": "user", "content": "é" * 600_000}]
    chat = post(server, "/chat/prompt", model="builtin", messages=messages)

    assert (refused.status_code, chat.status_code) == (400, 400)
    assert refused.json()["error"]["code"] == "string_above_max_length"
    assert chat.json()["error"]["code"] == "context_length_exceeded"


def test_control_tokens_are_text_unless_parse_special_is_set(server):
    as_text = post(server, "/tokenize", model="builtin", text="<|im_end|>").json()
    as_token = post(
        server, "/tokenize", model="builtin", text="<|im_end|>", parse_special=True
    ).json()
    begun = post(server, "/tokenize", model="builtin", text="Hello", add_special=True).json()

    assert as_text["count"] > as_token["count"] == 1
    assert begun["count"] >= 1


@pytest.mark.parametrize("tokens", [[10**6], [-1]])
def test_a_token_that_the_model_does_not_have_is_refused(server, tokens):
    refused = post(server, "/detokenize", model="builtin", tokens=tokens)

    assert refused.status_code == 400
    assert refused.json()["error"]["param"].startswith("tokens")


def test_a_chat_is_shown_as_the_model_reads_it(server, client):
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Say <|im_end|> please"},
    ]
    read = post(server, "/chat/prompt", model="builtin", messages=messages).json()
    answer = client.chat.completions.create(model="builtin", messages=messages, max_tokens=1)

    assert "Be brief." in read["prompt"]
    assert read["prompt"].endswith("assistant\n")
    assert read["count"] == len(read["tokens"]) == answer.usage.prompt_tokens


def test_top_logprobs_are_sorted(client):
    answer = client.chat.completions.create(
        model="builtin", messages=[{"role": "user", "content": "Hello!"}], max_tokens=1,
        logprobs=True, top_logprobs=20,
    )  # fmt: skip

    (token,) = answer.choices[0].logprobs.content
    likely = [one.logprob for one in token.top_logprobs]
    assert len(likely) == 20
    assert likely == sorted(likely, reverse=True)


def test_an_unknown_model_has_no_tokenizer(server):
    assert post(server, "/tokenize", model="unknown", text="x").status_code == 404


def test_a_model_that_a_project_may_not_use_is_neither_shown_nor_run(tmp_path):
    with (
        serve(tmp_path, environment={"LLM_BACKEND_API_KEYS": "sk-root"}) as served,
        StrictOpenAI(
            base_url=served.base_url, api_key="sk-root", admin_api_key="sk-root"
        ) as client,
        httpx.Client(headers={"authorization": "Bearer sk-root"}) as asking,
    ):
        before = asking.get(f"{served.address}/chat/ask", params={"question": "Hello!"})
        client.admin.organization.projects.model_permissions.update(
            "proj_default", mode="deny_list", model_ids=["builtin"]
        )
        asked = asking.get(f"{served.address}/chat/ask", params={"question": "Hello!"})
        tokens = asking.post(f"{served.base_url}/tokenize", json={"model": "builtin", "text": "x"})
        info = asking.get(f"{served.base_url}/info")
        with asking.stream("GET", f"{served.address}/status") as stream:
            status = json.loads(next(stream.iter_lines())[6:])

    assert (before.status_code, asked.status_code, tokens.status_code) == (200, 403, 404)
    assert (info.json()["models"], status["models"]) == ([], [])
