"""A server in front of another: what is not local is relayed, and remembered like the rest."""

import json
from collections.abc import Iterator
from dataclasses import dataclass

import httpx
import openai
import pytest

from tests.serving import EXACT, Served, serve
from tests.strict_sdk import StrictOpenAI

HELLO = [{"role": "user", "content": "Hello!"}]


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A gateway, and the server that is its upstream."""

    gateway: Served
    upstream: Served

    def client(self, key: str = "sk-client") -> openai.OpenAI:
        return StrictOpenAI(base_url=self.gateway.base_url, api_key=key, max_retries=0)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    environment = {"LLM_BACKEND_API_KEYS": "sk-upstream", **EXACT}
    with serve(
        tmp_path_factory.mktemp("upstream"), "--alias", "far", environment=environment
    ) as upstream:
        environment = {
            **EXACT,
            "LLM_BACKEND_API_KEYS": "sk-client",
            "OPENAI_API_KEY": "sk-upstream",
            "OPENAI_BASE_URL": upstream.base_url,
        }
        with serve(
            tmp_path_factory.mktemp("gateway"), "--alias", "near", environment=environment
        ) as gateway:
            yield Pair(gateway=gateway, upstream=upstream)


def test_a_model_that_is_not_local_is_relayed_with_the_servers_own_key(pair):
    with pair.client() as client:
        answer = client.chat.completions.create(model="far", messages=HELLO)
        stored = client.chat.completions.retrieve(answer.id)

    assert answer.choices[0].message.content
    assert stored.choices[0].message.content == answer.choices[0].message.content


def test_decisions_of_an_upstreams_model_are_relayed(pair):
    question = {"type": "predicate", "name": "greeting", "instructions": "It is a greeting."}
    with pair.client() as client:
        far, near = (
            client.decisions.create(model=model, input="Hello!", questions=[question])
            for model in ("far", "near")
        )

    assert (far.model, near.model) == ("far", "near")
    assert far.answers[0].name == "greeting"
    assert far.answers[0].probability == pytest.approx(near.answers[0].probability, abs=1e-3)


def test_a_relayed_stream_is_stored_too(pair):
    with (
        pair.client() as client,
        client.chat.completions.create(model="far", messages=HELLO, stream=True) as stream,
    ):
        chunks = list(stream)
        stored = client.chat.completions.retrieve(chunks[0].id)

    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert stored.choices[0].message.content == text
    assert stored.choices[0].finish_reason == "stop"


def test_chats_with_store_false_are_not_stored(pair):
    with pair.client() as client:
        answer = client.chat.completions.create(model="far", messages=HELLO, store=False)
        with pytest.raises(openai.NotFoundError):
            client.chat.completions.retrieve(answer.id)


def test_models_of_both_are_one_list_and_local_names_win(pair):
    with pair.client() as client:
        models = [model.id for model in client.models.list()]

        assert sorted(models) == ["builtin", "far", "near"]
        assert client.models.retrieve("far").id == "far"


def test_errors_of_the_upstream_come_as_they_are(pair):
    headers = {"authorization": "Bearer sk-client"}
    body = {"model": "unknown", "messages": HELLO}
    relayed = httpx.post(f"{pair.gateway.base_url}/chat/completions", json=body, headers=headers)
    direct = httpx.post(
        f"{pair.upstream.base_url}/chat/completions",
        json=body,
        headers={"authorization": "Bearer sk-upstream"},
    )

    assert relayed.status_code == direct.status_code == 404
    assert relayed.content == direct.content


def test_operations_that_are_not_local_are_relayed_and_its_refusal_comes_back(pair):
    with pair.client() as client, pytest.raises(openai.APIStatusError) as caught:
        client.images.generate(prompt="a cat")

    assert caught.value.status_code == 501
    assert caught.value.response.headers["x-request-id"]


def test_embeddings_and_completions_of_other_models_are_relayed(pair):
    with pair.client() as client:
        answer = client.completions.create(model="far", prompt="Hello", max_tokens=3)
        with pytest.raises(openai.BadRequestError):
            client.embeddings.create(model="far", input="x")

    assert answer.model == "far"


def test_documents_for_other_models_are_ranked_upstream(pair):
    response = httpx.post(
        f"{pair.gateway.base_url}/rerank",
        json={"model": "far", "query": "cat", "documents": ["dog"]},
        headers={"authorization": "Bearer sk-client"},
    )

    assert response.status_code == 400
    assert "cannot rank documents" in response.json()["error"]["message"]  # the upstream's words


def test_fields_outside_the_document_reach_the_upstream(pair):
    response = httpx.post(
        f"{pair.gateway.base_url}/chat/completions",
        json={"model": "far", "messages": HELLO, "field_of_tomorrow": 1},
        headers={"authorization": "Bearer sk-client"},
    )

    assert response.status_code == 400
    assert response.json()["error"]["param"] == "field_of_tomorrow"  # the upstream's own words


def test_an_upstream_that_is_down_hides_only_its_own(tmp_path):
    environment = {"OPENAI_API_KEY": "sk-x", "OPENAI_BASE_URL": "http://127.0.0.1:9/v1"}
    with serve(tmp_path, environment=environment) as served:
        models = httpx.get(f"{served.base_url}/models").json()
        body = {"messages": HELLO, "max_tokens": 2}
        near = httpx.post(
            f"{served.base_url}/chat/completions", json={"model": "builtin", **body}, timeout=60
        )
        far = httpx.post(f"{served.base_url}/chat/completions", json={"model": "far", **body})

    assert [model["id"] for model in models["data"]] == ["builtin"]
    assert near.status_code == 200
    assert far.status_code == 502
    assert far.json()["error"]["code"] == "upstream_failed"
    assert "127.0.0.1" not in json.dumps(far.json())


def test_a_file_of_the_upstream_is_reached_by_its_id(pair):
    there = StrictOpenAI(base_url=pair.upstream.base_url, api_key="sk-upstream", max_retries=0)
    with there, pair.client() as client:
        made = there.files.create(file=("a.jsonl", b"far"), purpose="batch")
        own = client.files.create(file=("b.jsonl", b"near"), purpose="batch")
        found = client.files.retrieve(made.id)
        text = client.files.content(made.id).content
        listed = client.files.list().data
        client.files.delete(made.id)
        is_gone = made not in there.files.list().data

    assert found == made
    assert text == b"far"
    assert listed == [own]
    assert is_gone


def test_files_can_be_the_upstreams(pair, tmp_path):
    environment = {
        "OPENAI_API_KEY": "sk-upstream",
        "OPENAI_BASE_URL": pair.upstream.base_url,
        "LLM_BACKEND_FILES": "upstream",
    }
    with (
        serve(tmp_path, "--model", "none", environment=environment) as served,
        StrictOpenAI(base_url=served.base_url, api_key="none", max_retries=0) as client,
        StrictOpenAI(base_url=pair.upstream.base_url, api_key="sk-upstream") as there,
    ):
        made = client.files.create(file=("a.jsonl", b"far"), purpose="fine-tune")
        listed = client.files.list(purpose="fine-tune").data
        text = there.files.content(made.id).content

    assert listed == [made]
    assert text == b"far"
    assert not (tmp_path / "files").exists()


def test_an_upload_of_the_upstream_is_reached_by_its_id(pair):
    there = StrictOpenAI(base_url=pair.upstream.base_url, api_key="sk-upstream", max_retries=0)
    with there, pair.client() as client:
        upload = there.uploads.create(
            bytes=5, filename="a", mime_type="text/plain", purpose="batch"
        )
        part = client.uploads.parts.create(upload.id, data=b"hello")
        done = client.uploads.complete(upload.id, part_ids=[part.id])
        text = there.files.content(done.file.id).content

    assert text == b"hello"
