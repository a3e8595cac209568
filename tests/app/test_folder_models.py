"""Models of the models folder: which are served, and under which names."""

from pathlib import Path

import pytest

from llm_backend.app.served_models import build_served_models
from llm_backend.settings import Settings, SettingsError
from tests.engine.gguf_models import write_llama
from tests.engine.projectors import write_eyes
from tests.whisper_models import write_whisper


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a/one/tiny.gguf", "b/two/tiny.gguf", "named.gguf"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        write_llama(tmp_path / name)
    write_eyes(tmp_path / "a/one/mmproj-tiny.gguf")
    (tmp_path / "broken.gguf").write_bytes(b"GGUF")
    return tmp_path


def test_models_of_the_folder_are_served_by_their_files_names(folder, caplog):
    settings = Settings(models=["named.gguf"], models_dir=folder, serve_models_folder=True)

    served = build_served_models(settings)

    assert [one.card.id for one in served] == ["named", "tiny", "b/two/tiny"]
    assert [dict(one.card.more).get("file") for one in served] == [
        None, "a/one/tiny.gguf", "b/two/tiny.gguf",
    ]  # fmt: skip
    assert [one.loads_at_start for one in served] == [True, False, False]
    assert "model_file_refused" in caplog.text


def test_models_of_the_folder_are_not_served_unless_it_is_set(folder):
    settings = Settings(models=["named.gguf"], models_dir=folder)

    assert [one.card.id for one in build_served_models(settings)] == ["named"]


@pytest.mark.parametrize(
    ("files", "settings", "ids", "left_out"),
    [
        (("a/x.gguf", "x.gguf"), {}, ["builtin", "x", "a/x"], []),
        (("x.gguf", "a/x.gguf"), {"aliases": ["x=builtin"]}, ["builtin", "a/x"], ["x.gguf"]),
        (
            ("builtin.gguf", "builtin-voice.gguf", "x.gguf"), {"models": ["none"]}, ["x"],
            ["builtin-voice.gguf", "builtin.gguf"],
        ),
        (("a/x.gguf", "x.gguf"), {"models": ["a/x.gguf"]}, ["x"], ["x.gguf"]),
        (
            ("x.gguf", "x:pirate.gguf"),
            {"models": [{"path": "builtin", "aliases": ["x"], "personalities": {"pirate": "Arr"}}]},
            ["builtin"], ["x.gguf", "x:pirate.gguf"],
        ),
        (("x.gguf", "y.gguf"), {"routes": {"x": ["x", "y"]}}, ["builtin", "x", "y"], []),
    ],
)  # fmt: skip
def test_files_whose_names_are_taken_are_left_out(tmp_path, caplog, files, settings, ids, left_out):
    for name in files:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write_llama(tmp_path / name)
    more = {"models": ["builtin"], **settings}

    served = build_served_models(Settings(**more, models_dir=tmp_path, serve_models_folder=True))

    assert [one.card.id for one in served] == ids
    reasons = [one.reason for one in caplog.records if one.message == "model_file_refused"]
    assert len(reasons) == len(left_out)
    for name, reason in zip(left_out, reasons, strict=True):
        assert f"{tmp_path / name} is not served" in reason


def test_a_file_of_another_kind_with_the_same_name_is_left_out(tmp_path, caplog):
    write_llama(tmp_path / "tiny.gguf")
    write_whisper(tmp_path / "tiny.bin")

    served = build_served_models(
        Settings(models=["none"], models_dir=tmp_path, serve_models_folder=True)
    )

    assert [one.card.id for one in served] == ["tiny"]
    assert f"{tmp_path / 'tiny.gguf'} is not served" in caplog.records[-1].reason


def test_a_models_folder_that_is_a_file_is_refused(tmp_path):
    file = tmp_path / "tiny.gguf"
    write_llama(file)

    with pytest.raises(SettingsError, match=f"`models_dir`.*{file}.* is not a folder"):
        build_served_models(Settings(models=["none"], models_dir=file, serve_models_folder=True))
