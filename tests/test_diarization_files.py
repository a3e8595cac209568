"""Files of models that tell speakers apart: what is recognised and what is refused."""

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
    read_diarization,
    remove_model,
)
from llm_backend.settings import Settings
from tests.tone_speakers import write_speakers


def test_a_model_is_found_by_its_folder(tmp_path):
    path = write_speakers(tmp_path / "someone" / "tones")
    files = read_diarization(path)

    assert list_model_files(tmp_path) == [path]
    for name in ("someone/tones", str(path.parent), str(path)):
        assert find_model_file(name, tmp_path) == path
    assert (files.name, files.framework, files.dimensions) == ("tones", "wespeaker", 80)
    assert files.file_bytes < files.memory_bytes


def test_both_files_are_needed(tmp_path):
    path = write_speakers(tmp_path / "tones")
    path.with_name("embedding.onnx").unlink()
    with pytest.raises(ModelFileMissing, match=r"must have segmentation\.onnx and embedding\.onnx"):
        find_model_file(str(path.parent), tmp_path)

    assert list_model_files(tmp_path) == []


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"sample_rate": "8000"}, "for audio of 8000 Hz"),
        ({"window_size": ""}, "`window_size` is missing"),
        ({"receptive_field_shift": "0"}, "`receptive_field_shift` is 0"),
        ({"receptive_field_size": "16001"}, "`receptive_field_size` is 16001"),
        ({"powerset_max_classes": "3"}, "`powerset_max_classes` is 3"),
        ({"num_classes": "4"}, "4 classes for 2 speakers, 1 at once, not 3"),
        ({"powerset_max_classes": "2"}, "3 classes for 2 speakers, 2 at once, not 4"),
    ],
)
def test_metadata_that_the_library_cannot_compute_are_refused(tmp_path, metadata, message):
    path = write_speakers(tmp_path / "tones", **metadata)
    with pytest.raises(HeaderError, match=message):
        read_diarization(path)


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        (b"wespeaker", b"somebodys", "`framework` is somebodys"),
        (b"wespeaker", b"3d-speake", "`framework` is 3d-speake"),
        (b"output_dim", b"output_dom", "`output_dim` is missing"),
        (b"language", b"langwage", "`language` is missing"),
        (b"normalize_samples", b"normalise_samples", "`normalize_samples` is missing"),
    ],
)
def test_embeddings_that_the_library_cannot_compute_are_refused(tmp_path, before, after, message):
    path = write_speakers(tmp_path / "tones")
    embedding = path.with_name("embedding.onnx")
    embedding.write_bytes(embedding.read_bytes().replace(before, after))
    with pytest.raises(HeaderError, match=message):
        read_diarization(path)


def test_a_model_that_is_cut_is_refused(tmp_path):
    path = write_speakers(tmp_path / "tones")
    embedding = path.with_name("embedding.onnx")
    whole = embedding.read_bytes()
    for size in (0, 10, len(whole) // 2, len(whole) - 1):
        embedding.write_bytes(whole[:size])
        with pytest.raises(HeaderError):
            read_diarization(path)


def test_a_served_model_is_named_after_its_folder(tmp_path):
    path = write_speakers(tmp_path / "tones")
    settings = Settings.model_validate({"models": [str(path.parent)], "data_dir": tmp_path})
    (model,) = build_served_models(settings)

    assert (model.card.id, model.engine.kind) == ("tones", ModelKind.DIARIZATION)
    assert model.diarization == read_diarization(path)
    assert dict(model.card.more)["input_modalities"] == ("audio",)


@pytest.mark.parametrize(
    ("given", "used"),
    [({}, 600), ({"hang_timeout_s": 60}, 600), ({"hang_timeout_s": 900}, 900)],
)
def test_its_worker_counts_as_hung_after_twice_the_length_of_a_block(tmp_path, given, used):
    path = write_speakers(tmp_path / "tones")
    settings = Settings.model_validate(
        {"models": [str(path.parent)], "data_dir": tmp_path, **given}
    )
    (model,) = build_served_models(settings)

    assert model.engine.hang_timeout_s == used


def test_the_folder_is_removed(tmp_path):
    path = write_speakers(tmp_path / "someone" / "tones")
    shutil.copy(path, tmp_path)
    remove_model(path, tmp_path)

    assert [one.name for one in tmp_path.iterdir()] == ["segmentation.onnx"]


def test_the_command_line_lists_and_shows_it(tmp_path, monkeypatch):
    path = write_speakers(tmp_path / "tones")
    monkeypatch.setenv("LLM_BACKEND_MODELS_DIR", str(tmp_path))
    monkeypatch.setenv("LLM_BACKEND_DATA_DIR", str(tmp_path / "data"))
    listed = CliRunner().invoke(app, ["models", "list"])
    shown = CliRunner().invoke(app, ["models", "show", str(path.parent)])

    assert "tones/segmentation.onnx" in listed.stdout
    assert "MB of memory" in listed.stdout
    assert "wespeaker embeddings of 80 numbers" in shown.stdout
    assert "Memory: " in shown.stdout
