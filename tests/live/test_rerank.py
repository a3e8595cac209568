"""Documents ranked by a served model, through plain HTTP."""

from collections.abc import Iterator

import httpx
import pytest

from tests.engine.bert_reference import Bert
from tests.engine.gguf_models import bert_pair, write_bert
from tests.serving import serve

QUERY = "the cat sat"
DOCUMENTS = ["the cat ran", "dog", "the dog sat the cat", "dog"]


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    folder = tmp_path_factory.mktemp("rerank")
    models = (
        write_bert(folder / "ranks.gguf", pooling=None, labels=1),
        write_bert(folder / "embeds.gguf"),
    )
    flags = [flag for model in models for flag in ("--model", str(model))]
    with (
        serve(folder / "data", *flags, environment={"LLM_BACKEND_INPUTS_LIMIT": "8"}) as served,
        httpx.Client(base_url=served.base_url, timeout=30) as one,
    ):
        yield one


@pytest.fixture(scope="module")
def relevances(tmp_path_factory: pytest.TempPathFactory) -> list[float]:
    """Scores of the documents by the reference model."""
    file = tmp_path_factory.mktemp("reference") / "ranks.gguf"
    model = Bert(write_bert(file, pooling=None, labels=1))
    return [model.relevance(bert_pair(QUERY, document)) for document in DOCUMENTS]


def rerank(client: httpx.Client, **fields: object) -> httpx.Response:
    body = {"model": "ranks", "query": QUERY, "documents": DOCUMENTS, **fields}
    return client.post("/rerank", json=body)


def test_documents_come_by_falling_relevance(client, relevances):
    answer = rerank(client).json()

    best_first = sorted(range(4), key=lambda place: -relevances[place])
    assert [one["index"] for one in answer["results"]] == best_first
    for one in answer["results"]:
        assert one["relevance_score"] == pytest.approx(relevances[one["index"]], abs=1e-3)
        assert "document" not in one
    assert (answer["object"], answer["model"]) == ("list", "ranks")
    tokens = sum(len(bert_pair(QUERY, document)) for document in DOCUMENTS)
    assert answer["usage"] == {"prompt_tokens": tokens, "total_tokens": tokens}


def test_the_best_ones_come_with_their_documents_where_they_are_wanted(client, relevances):
    documents = [{"text": text, "page": page} for page, text in enumerate(DOCUMENTS)]
    given = [*documents[:3], DOCUMENTS[3]]
    answer = rerank(client, documents=given, top_n=1, return_documents=True).json()

    (best,) = answer["results"]
    place = relevances.index(max(relevances))
    whole = documents[place] if place < 3 else {"text": DOCUMENTS[3]}
    assert (best["index"], best["document"]) == (place, whole)


def test_more_results_than_documents_are_all_of_them(client):
    assert len(rerank(client, top_n=99).json()["results"]) == 4


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"query": ""}, "query", None),
        ({"documents": []}, "documents", None),
        ({"documents": ["a"] * 9}, "documents", None),
        ({"documents": ["a", {"title": "a"}]}, None, None),
        ({"top_n": 0}, "top_n", None),
        ({"documents": ["a", "cat " * 600]}, "documents[1]", "context_length_exceeded"),
        ({"max_tokens_per_doc": 100}, "max_tokens_per_doc", None),
        ({"model": "embeds"}, "model", None),
    ],
)
def test_an_unsupported_ranking_is_refused_by_its_field(client, fields, param, code):
    answer = rerank(client, **fields)

    error = answer.json()["error"]
    assert answer.status_code == 400, error
    if param is not None:
        assert error["param"] == param
    if code is not None:
        assert error["code"] == code


def test_a_rerank_model_refuses_embeddings_and_chats(client):
    chat = {"model": "ranks", "messages": [{"role": "user", "content": "Hello"}]}
    answers = [
        client.post("/embeddings", json={"model": "ranks", "input": "a"}),
        client.post("/chat/completions", json=chat),
        client.post("/completions", json={"model": "ranks", "prompt": "a"}),
    ]

    assert [answer.status_code for answer in answers] == [400, 400, 400]
    assert {answer.json()["error"]["param"] for answer in answers} == {"model"}


def test_a_rerank_model_has_no_capability_of_ollamas(client):
    assert rerank(client).status_code == 200  # it is loaded
    answer = client.get(f"{client.base_url.copy_with(path='/api/ps')}").json()
    (listed,) = (one for one in answer["models"] if one["name"] == "ranks")

    assert listed["capabilities"] == []


def test_an_unknown_model_is_named(client):
    answer = rerank(client, model="far")

    assert (answer.status_code, answer.json()["error"]["param"]) == (404, "model")
