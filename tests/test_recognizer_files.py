"""Files of NeMo models that transcribe: those recognised and those refused."""

import shutil

import pytest
from typer.testing import CliRunner

from llm_backend.app.served_models import build_served_models
from llm_backend.cli.program import app
from llm_backend.engine.messages import ModelKind
from llm_backend.model_files import (
    HeaderError,
    ModelFileMissing,
    find_model_file,
    list_model_files,
    read_recognizer,
    remove_model,
)
from llm_backend.settings import Settings
from tests.tone_recognizer import WORDS, write_recognizer


def test_a_model_is_found_by_its_folder(tmp_path):
    path = write_recognizer(tmp_path / "someone" / "parakeet")
    files = read_recognizer(path)

    assert list_model_files(tmp_path) == [path]
    for name in ("someone/parakeet", str(path.parent), str(path)):
        assert find_model_file(name, tmp_path) == path
    assert (files.name, files.vocabulary, files.frame_s) == ("parakeet", len(WORDS), 0.08)
    assert files.is_tdt
    assert files.file_bytes < files.memory_bytes


def test_small_parts_are_taken_beside_a_small_encoder(tmp_path):
    path = write_recognizer(tmp_path / "parakeet")
    small = path.with_name("encoder.int8.onnx")
    path.rename(small)
    for part in ("decoder", "joiner"):
        shutil.copy(path.with_name(f"{part}.onnx"), path.with_name(f"{part}.int8.onnx"))
    files = read_recognizer(small)

    assert files.joiner == path.with_name("joiner.int8.onnx")


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"vocab_size": ""}, "`vocab_size` is missing"),
        ({"vocab_size": "7"}, "5 tokens, and <blk> is number 4: the model has 8"),
        ({"subsampling_factor": "0"}, "`subsampling_factor` is 0"),
        ({"pred_hidden": "-2"}, "`pred_hidden` is -2"),
        ({"normalize_type": "whole"}, "`normalize_type` is whole"),
        ({"feat_dim": "many"}, "`feat_dim` is many"),
    ],
)
def test_metadata_that_the_library_cannot_compute_are_refused(tmp_path, metadata, message):
    path = write_recognizer(tmp_path / "model", **metadata)
    with pytest.raises(HeaderError, match=message):
        read_recognizer(path)


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (b"one 0\ntwo 1\n", "has no token <blk>"),
        (b"one 0\nno number\n", "is broken in line 2"),
        (b"one 0\n\n<blk> 1\n", "is broken in line 2"),
        (b"\xff 0\n", "is not UTF-8"),
    ],
)
def test_broken_tokens_are_refused(tmp_path, tokens, message):
    path = write_recognizer(tmp_path / "model", kind="ctc")
    path.with_name("tokens.txt").write_bytes(tokens)
    with pytest.raises(HeaderError, match=message):
        read_recognizer(path)


@pytest.mark.parametrize("part", ["encoder.onnx", "decoder.onnx", "joiner.onnx", "tokens.txt"])
def test_cut_files_are_refused(tmp_path, part):
    path = write_recognizer(tmp_path / "model")
    cut = path.with_name(part)
    whole = cut.read_bytes().rstrip(b"\n")

    for length in {0, 1, 7, len(whole) // 4, len(whole) // 2, len(whole) - 1}:
        cut.write_bytes(whole[:length])
        with pytest.raises(HeaderError):
            read_recognizer(path)


def test_missing_parts_are_named(tmp_path):
    path = write_recognizer(tmp_path / "model")
    path.with_name("joiner.onnx").unlink()
    with pytest.raises(HeaderError, match=r"needs the file joiner\.onnx beside it"):
        read_recognizer(path)
    path.with_name("tokens.txt").unlink()
    with pytest.raises(ModelFileMissing, match=r"and a tokens\.txt"):
        find_model_file(str(path.parent), tmp_path)


def test_a_served_model_transcribes(tmp_path):
    path = write_recognizer(tmp_path / "parakeet", kind="rnnt")
    (served,) = build_served_models(
        Settings.model_validate({"models": [str(path.parent)], "data_dir": tmp_path})
    )

    assert served.card.id == "parakeet"
    assert served.engine.kind is ModelKind.TRANSCRIPTION
    assert dict(served.card.more)["output_modalities"] == ("text",)
    assert served.recognizer is not None


def test_commands_list_and_show_nemo_models(tmp_path, monkeypatch):
    path = write_recognizer(tmp_path / "someone" / "parakeet")
    monkeypatch.setenv("LLM_BACKEND_MODELS_DIR", str(tmp_path))
    monkeypatch.setenv("LLM_BACKEND_DATA_DIR", str(tmp_path / "data"))
    shown = CliRunner().invoke(app, ["models", "show", "someone/parakeet"]).output
    listed = CliRunner().invoke(app, ["models", "list"]).output

    assert "NeMo transducer (TDT), 4 tokens: transcribes recordings." in shown
    assert "nemo" in listed

    remove_model(path, tmp_path)
    assert list_model_files(tmp_path) == []
