"""A BERT of random weights computes in llama.cpp what it computes in numpy."""

from pathlib import Path

import numpy as np
import pytest
from embedder import embedder
from tiny_bert import (
    CLS,
    CONFIG,
    CONTEXT_TOKENS,
    SEP,
    TOKENIZER,
    UNK,
    VOCABULARY,
    WIDTH,
    Weights,
    cosine,
    random_weights,
    token_vectors,
    write_folder,
    write_safetensors,
)

from llm_backend.model_import import convert

TEXT = "The unplayed dog plays, playing x."
PIECES = ["the", "un", "##play", "##ed", "dog", "play", "##s", ",", "play", "##ing", "x", "."]


def ids(*pieces: str) -> list[int]:
    return [CLS, *(VOCABULARY.index(piece) for piece in pieces), SEP]


def mean_vector(weights: Weights) -> np.ndarray:
    return token_vectors(weights, ids(*PIECES)).mean(axis=0)


@pytest.mark.parametrize(
    ("outtype", "at_least"), [("f32", 0.99999), ("f16", 0.9999), ("q8_0", 0.999)]
)
def test_mean_pooling_is_what_numpy_computes(tmp_path: Path, outtype, at_least):
    folder = write_folder(tmp_path / "model")

    model = convert(folder, tmp_path / "tiny.gguf", outtype=outtype)

    assert model.pooling == "mean"
    with embedder(model.path) as llama:
        assert cosine(llama.embed(TEXT), mean_vector(random_weights())) >= at_least


@pytest.mark.parametrize(
    "pooling",
    [{"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, {"pooling_mode": "cls"}],
)
def test_cls_pooling_is_the_first_tokens_vector(tmp_path: Path, pooling):
    folder = write_folder(tmp_path / "model", pooling=pooling)

    model = convert(folder, tmp_path / "tiny.gguf", outtype="f32")

    assert model.pooling == "cls"
    with embedder(model.path) as llama:
        expected = token_vectors(random_weights(), ids(*PIECES))[0]
        assert cosine(llama.embed(TEXT), expected) >= 0.99999


def test_text_becomes_the_pieces_of_the_folders_own_vocabulary(tmp_path: Path):
    model = convert(write_folder(tmp_path / "model"), tmp_path / "tiny.gguf")

    with embedder(model.path) as llama:
        assert llama.tokenize(TEXT) == ids(*PIECES)
        assert llama.tokenize("") == [CLS, SEP]
        assert llama.tokenize("DOG é##学 nonsense xxx") == [
            *ids("dog", "e", "#", "#", "学")[:-1],
            UNK,
            *ids("x", "##x", "##x")[1:],
        ]


def test_a_cased_vocabulary_keeps_case_and_accents(tmp_path: Path):
    normalizer = {**TOKENIZER["normalizer"], "lowercase": False}
    folder = write_folder(tmp_path / "model", tokenizer={**TOKENIZER, "normalizer": normalizer})

    model = convert(folder, tmp_path / "tiny.gguf")

    with embedder(model.path) as llama:
        assert llama.tokenize("dog Dog é e") == ids("dog", "Dog", "é", "e")


def test_vocab_txt_serves_where_there_is_no_tokenizer_json(tmp_path: Path):
    folder = write_folder(tmp_path / "model")
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n", encoding="utf-8")

    model = convert(folder, tmp_path / "tiny.gguf")

    with embedder(model.path) as llama:
        assert llama.tokenize(TEXT) == ids(*PIECES)


def test_rows_without_a_token_are_filled_up(tmp_path: Path):
    rows = len(VOCABULARY) + 7
    folder = write_folder(
        tmp_path / "model", weights=random_weights(rows), config={**CONFIG, "vocab_size": rows}
    )

    model = convert(folder, tmp_path / "tiny.gguf")

    with embedder(model.path) as llama:
        assert llama.tokenize(TEXT) == ids(*PIECES)
        assert cosine(llama.embed(TEXT), mean_vector(random_weights(rows))) >= 0.9999


def test_half_precision_weights_are_read(tmp_path: Path):
    weights = random_weights()
    bfloat16 = {
        name: (tensor.view("<u4") >> 16).astype("<u2") if tensor.ndim == 2 else tensor
        for name, tensor in weights.items()
    }
    float16 = {name: tensor.astype("<f2") for name, tensor in weights.items()}
    for kind, stored in (("bf16", bfloat16), ("f16", float16)):
        folder = write_folder(tmp_path / kind, weights=stored)

        model = convert(folder, tmp_path / f"{kind}.gguf", outtype="f32")

        with embedder(model.path) as llama:
            assert cosine(llama.embed(TEXT), mean_vector(weights)) >= 0.999


def test_a_checkpoint_with_heads_is_read_without_them(tmp_path: Path):
    weights = {f"bert.{name}": tensor for name, tensor in random_weights().items()}
    weights["cls.predictions.bias"] = np.zeros(len(VOCABULARY), dtype="<f4")
    weights["bert.embeddings.position_ids"] = np.arange(CONTEXT_TOKENS, dtype="<i8")
    folder = write_folder(
        tmp_path / "model",
        weights=weights,
        config={**CONFIG, "architectures": ["BertForMaskedLM"]},
    )

    model = convert(folder, tmp_path / "tiny.gguf", outtype="f32")

    with embedder(model.path) as llama:
        assert cosine(llama.embed(TEXT), mean_vector(random_weights())) >= 0.99999


def test_progress_and_the_written_model_are_reported(tmp_path: Path):
    seen = []

    model = convert(
        write_folder(tmp_path / "model"),
        tmp_path / "tiny.gguf",
        progress=lambda written, total: seen.append((written, total)),
    )

    assert (model.name, model.outtype, model.tensors) == ("tiny", "f16", 5 + 2 * 16)
    assert (model.embedding_length, model.context_tokens) == (WIDTH, CONTEXT_TOKENS)
    assert model.size_bytes == model.path.stat().st_size > seen[-1][1]
    assert len(seen) == model.tensors
    assert seen == sorted(seen)
    assert seen[-1][0] == seen[-1][1]


def test_the_same_folder_makes_the_same_bytes_also_over_an_old_file(tmp_path: Path):
    folder = write_folder(tmp_path / "model")
    first = convert(folder, tmp_path / "tiny.gguf").path.read_bytes()
    (tmp_path / "tiny.gguf").write_bytes(b"old")

    second = convert(folder, tmp_path / "tiny.gguf", force=True).path.read_bytes()

    assert first == second


def test_an_unaligned_width_stays_float16_in_q8_0(tmp_path: Path):
    """Rows of 48 values do not fill Q8_0's blocks of 32."""
    weights = random_weights()
    for layer in range(CONFIG["num_hidden_layers"]):
        name = f"encoder.layer.{layer}"
        for part in (f"{name}.intermediate.dense.weight", f"{name}.intermediate.dense.bias"):
            weights[part] = weights[part][:48].copy()
        outer = f"{name}.output.dense.weight"
        weights[outer] = weights[outer][:, :48].copy()
    folder = write_folder(
        tmp_path / "model", weights=weights, config={**CONFIG, "intermediate_size": 48}
    )

    model = convert(folder, tmp_path / "tiny.gguf", outtype="q8_0")

    with embedder(model.path) as llama:
        assert cosine(llama.embed(TEXT), mean_vector(weights)) >= 0.999


def test_safetensors_written_here_are_read_from_any_offset(tmp_path: Path):
    """The header's length is not a multiple of four, so the tensors are not aligned."""
    folder = write_folder(tmp_path / "model")
    weights = {"padding": np.zeros(1, dtype="<u2"), **random_weights()}
    write_safetensors(folder / "model.safetensors", weights)

    model = convert(folder, tmp_path / "tiny.gguf", outtype="f32")

    with embedder(model.path) as llama:
        assert cosine(llama.embed(TEXT), mean_vector(random_weights())) >= 0.99999
