"""Failed conversions: one sentence, and no file left behind."""

import contextlib
import json
import os
import resource
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from tiny_bert import CONFIG, TOKENIZER, VOCABULARY, random_weights, write_folder

from llm_backend.model_import import ConversionError, convert


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "model")


@contextlib.contextmanager
def full_disk() -> Iterator[None]:
    """A file's first 20 KiB are taken and the rest refused: any file's, so that nothing else may be
    written within, such as what the tests say."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20 * 1024, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def refusal(folder: Path) -> str:
    target = folder.parent / "out.gguf"
    with pytest.raises(ConversionError) as refused:
        convert(folder, target)
    assert [path.name for path in folder.parent.iterdir() if path != folder] == []
    message = str(refused.value)
    assert message.endswith(".")
    assert "\n" not in message
    return message


def rewrite(path: Path, **changes: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_a_missing_folder(tmp_path: Path):
    assert "there is no such folder" in refusal(tmp_path / "nowhere")


def test_a_folder_without_a_config(folder: Path):
    (folder / "config.json").unlink()

    assert "is not a model folder: it has no config.json" in refusal(folder)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"model_type": "roberta", "architectures": ["RobertaModel"]},
            "The architecture RobertaModel (roberta) is not supported",
        ),
        (
            {"architectures": ["BertForSequenceClassification"]},
            "The architecture BertForSequenceClassification (bert) is not supported",
        ),
        ({"hidden_act": "relu"}, "The activation relu is not supported"),
        ({"position_embedding_type": "relative_key"}, "not a decoder or relative_key"),
        ({"is_decoder": True}, "not a decoder"),
        ({"num_attention_heads": 7}, "7 heads cannot share 64 dimensions"),
        ({"hidden_size": "wide"}, "has a form that is not understood"),
        ({"hidden_size": float("inf")}, "has a form that is not understood"),
        ({"intermediate_size": 96}, "where config.json asks for (96, 64)"),
        ({"vocab_size": 3}, "does not fit 3 embeddings"),
    ],
)
def test_another_network(folder: Path, changes, sentence):
    rewrite(folder / "config.json", **changes)

    assert sentence in refusal(folder)


def test_a_config_without_a_size(folder: Path):
    config = {key: value for key, value in CONFIG.items() if key != "num_hidden_layers"}
    (folder / "config.json").write_text(json.dumps(config))

    assert "does not give 'num_hidden_layers'" in refusal(folder)


@pytest.mark.parametrize("content", ["{", "[1]", "\udcff"])
def test_a_config_that_is_not_an_object(folder: Path, content):
    (folder / "config.json").write_text(content, errors="surrogateescape")

    assert "config.json" in refusal(folder)


@pytest.mark.parametrize(
    ("pooling", "named"),
    [
        ({"pooling_mode_max_tokens": True}, "max"),
        ({"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": True}, "cls and mean"),
        ({"pooling_mode_lasttoken": True}, "lasttoken"),
        ({"pooling_mode": "weightedmean"}, "weightedmean"),
        ({"pooling_mode_mean_tokens": False}, "none"),
    ],
)
def test_another_pooling(tmp_path: Path, pooling, named):
    folder = write_folder(tmp_path / "model", pooling=pooling)

    assert f"Pooling by {named} is not supported" in refusal(folder)


def test_a_layer_after_the_pooling(folder: Path):
    kinds = ("Transformer", "Pooling", "Dense")
    modules = [{"path": "", "type": f"sentence_transformers.models.{kind}"} for kind in kinds]
    (folder / "modules.json").write_text(json.dumps(modules))

    assert "The module Dense" in refusal(folder)


def test_modules_of_another_form(folder: Path):
    (folder / "modules.json").write_text('["Transformer"]')

    assert "has a form that is not understood" in refusal(folder)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"model": {"type": "BPE", "vocab": {}}}, "is not a WordPiece tokenizer"),
        ({"normalizer": {"type": "NFC"}}, "does not normalize text as BERT does"),
        ({"normalizer": None}, "does not normalize text as BERT does"),
    ],
)
def test_another_tokenizer(folder: Path, changes, sentence):
    rewrite(folder / "tokenizer.json", **changes)

    assert sentence in refusal(folder)


def test_a_vocabulary_without_a_special_token(tmp_path: Path):
    pieces = {piece: place for place, piece in enumerate(VOCABULARY) if piece != "[MASK]"}
    model = {**TOKENIZER["model"], "vocab": pieces}
    folder = write_folder(tmp_path / "model", tokenizer={**TOKENIZER, "model": model})

    assert "has no [MASK] token" in refusal(folder)


def test_pieces_that_llama_cpp_could_not_distinguish_are_refused(tmp_path: Path):
    pieces = {**TOKENIZER["model"]["vocab"], "##\u2581dog": VOCABULARY.index("Dog")}
    del pieces["Dog"]
    model = {**TOKENIZER["model"], "vocab": pieces}
    folder = write_folder(tmp_path / "model", tokenizer={**TOKENIZER, "model": model})

    assert "holds '\u2581dog' 2 times" in refusal(folder)


def test_no_vocabulary(folder: Path):
    (folder / "tokenizer.json").unlink()

    assert "has neither tokenizer.json nor vocab.txt" in refusal(folder)


def test_no_weights(folder: Path):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")

    assert "only safetensors weights can be converted" in refusal(folder)


def test_a_missing_tensor(tmp_path: Path):
    weights = random_weights()
    del weights["encoder.layer.1.output.dense.bias"]
    folder = write_folder(tmp_path / "model", weights=weights)

    assert "lack the tensor encoder.layer.1.output.dense.bias" in refusal(folder)


def test_weights_that_are_cut_off(folder: Path):
    path = folder / "model.safetensors"
    for length in (path.stat().st_size - 4, 100, 4, 0):
        os.truncate(path, length)

        assert "is not a whole safetensors file" in refusal(folder)


def test_weights_of_another_format(folder: Path):
    (folder / "model.safetensors").write_bytes(b"\xff" * 64)

    assert "is not a whole safetensors file" in refusal(folder)


def test_an_existing_target_is_kept(folder: Path, tmp_path: Path):
    target = tmp_path / "out.gguf"
    target.write_bytes(b"precious")

    with pytest.raises(ConversionError, match="exists already"):
        convert(folder, target)

    assert target.read_bytes() == b"precious"


def test_a_full_disk(folder: Path):
    with full_disk():
        message = refusal(folder)

    assert "could not be written" in message


def test_a_full_disk_keeps_the_old_file(folder: Path, tmp_path: Path):
    target = tmp_path / "out.gguf"
    target.write_bytes(b"precious")

    with full_disk(), pytest.raises(ConversionError, match="could not be written"):
        convert(folder, target, force=True)

    assert target.read_bytes() == b"precious"
    assert sorted(tmp_path.iterdir()) == [folder, target]


def test_a_target_in_no_folder(folder: Path, tmp_path: Path):
    with pytest.raises(ConversionError, match="No such file or directory"):
        convert(folder, tmp_path / "nowhere" / "out.gguf")


def test_a_progress_that_gives_up_leaves_nothing(folder: Path, tmp_path: Path):
    def give_up(_written: int, _total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert(folder, tmp_path / "out.gguf", progress=give_up)

    assert list(tmp_path.iterdir()) == [folder]


def test_without_gguf_the_extra_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "gguf", None)

    assert "pip install 'llm-backend[convert]'" in refusal(folder)


def test_values_too_large_for_half_precision(tmp_path: Path):
    weights = random_weights()
    weights["encoder.layer.0.output.dense.weight"][0, 0] = np.float32(1e6)
    folder = write_folder(tmp_path / "model", weights=weights)

    assert "blk.0.ffn_down.weight holds values beyond float16: convert to f32" in refusal(folder)
