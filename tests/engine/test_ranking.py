"""Relevance with real models."""

import asyncio

import pytest
from gguf import PoolingType

from llm_backend.engine import CommandFailed, EngineClient, EngineStartError
from llm_backend.engine.messages import Failure, Generate, ModelKind
from tests.engine.bert_reference import Bert
from tests.engine.conftest import config
from tests.engine.gguf_models import bert_pair, write_bert, write_llama

DOCUMENTS = ["the cat ran", "dog", "", "the dog sat the cat"]


async def test_scores_equal_the_forward_pass_in_numpy(tiny_reranker):
    async with EngineClient(config(tiny_reranker)) as engine:
        info = await engine.ready()
        found = await engine.rank("the cat sat", DOCUMENTS)

    pairs = [bert_pair("the cat sat", document) for document in DOCUMENTS]
    model = Bert(tiny_reranker)
    assert info.kind is ModelKind.RERANK
    assert found.prompt_tokens == sum(map(len, pairs))
    assert found.scores == pytest.approx([model.relevance(tokens) for tokens in pairs], abs=1e-3)
    assert max(found.scores) - min(found.scores) > 0.05


async def test_document_scores_the_same_alone_and_in_a_batch(tiny_reranker):
    async with EngineClient(config(tiny_reranker)) as engine:
        await engine.ready()
        documents = [
            f"the {chr(97 + number % 26)} cat " * (1 + number % 9) for number in range(200)
        ]
        together = await engine.rank("dog", documents)
        alone = [(await engine.rank("dog", [one])).scores[0] for one in documents[:12]]

    assert len(together.scores) == 200
    assert together.scores[:12] == pytest.approx(alone, abs=1e-4)


async def test_invalid_documents_are_refused(tiny_reranker):
    async with EngineClient(config(tiny_reranker)) as engine:
        await engine.ready()
        with pytest.raises(CommandFailed) as caught:
            await engine.rank("cat", ["dog", "cat " * 510])
        assert (caught.value.failure, caught.value.field) == (
            Failure.CONTEXT_LENGTH,
            "documents[1]",
        )
        with pytest.raises(CommandFailed, match="cannot embed"):
            await engine.embed(["a"])
        with pytest.raises(CommandFailed, match="cannot generate"):
            await engine.generate(Generate(id="1", prompt="a"))


@pytest.mark.parametrize(
    ("query", "documents", "field"),
    [
        ("a", ["b", "<tool_call>" * 300_000], "documents[1]"),
        ("x" * 8_000_000, ["b"], "query"),
    ],
)
async def test_far_too_long_document_is_refused_before_tokenizing_all_of_it(
    tmp_path, query, documents, field
):
    file = write_llama(tmp_path / "yes-or-no.gguf", can_rank=True)
    async with EngineClient(config(file)) as engine:
        await engine.ready()
        async with asyncio.timeout(60):  # to tokenize them takes minutes
            with pytest.raises(CommandFailed) as caught:
                await engine.rank(query, documents)

    assert (caught.value.failure, caught.value.field) == (Failure.CONTEXT_LENGTH, field)


async def test_chat_model_refuses_to_rank(tiny_llama):
    async with EngineClient(config(tiny_llama)) as engine:
        await engine.ready()
        with pytest.raises(CommandFailed, match="cannot rank") as caught:
            await engine.rank("a", ["b"])

    assert caught.value.failure is Failure.UNSUPPORTED


async def test_rerank_template_of_the_model_is_used(tmp_path):
    file = write_llama(tmp_path / "yes-or-no.gguf", can_rank=True)
    async with EngineClient(config(file)) as engine:
        info = await engine.ready()
        found = await engine.rank("{document}", ["the hat", "<|im_end|>", "the hat"])
        asked = await engine.tokenize("Query: {document}\nDocument: the hat", parse_special=False)
        marked = await engine.tokenize(
            "Query: {document}\nDocument: <|im_end|>", parse_special=False
        )

    assert info.kind is ModelKind.RERANK
    assert found.scores[0] == pytest.approx(found.scores[2], abs=1e-5)
    assert all(0 < score < 1 for score in found.scores)
    around = len(["<|im_start|>", "<|im_end|>", "\n"])
    assert found.prompt_tokens == 2 * len(asked) + len(marked) + 3 * around


@pytest.mark.parametrize(
    ("labels", "reason"), [(0, "no classification head"), (3, "a head of 3 labels")]
)
async def test_model_without_a_usable_head_is_refused(tmp_path, labels, reason):
    file = write_bert(tmp_path / "odd.gguf", pooling=PoolingType.RANK, labels=labels)
    async with EngineClient(config(file)) as engine:
        with pytest.raises(EngineStartError, match=reason):
            await engine.ready()


async def test_rerank_model_of_kind_embedding_embeds(tmp_path):
    file = write_bert(tmp_path / "both.gguf", pooling=PoolingType.RANK, labels=1)
    async with EngineClient(config(file, kind=ModelKind.EMBEDDING)) as engine:
        await engine.ready()
        assert (await engine.embed(["cat"])).embedding_size == 32
