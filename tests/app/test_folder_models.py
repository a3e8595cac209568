"""Models of the models folder: which are served, and under which names."""

from pathlib import Path

import pytest

from llm_backend.app.served_models import build_served_models
from llm_backend.settings import Settings
from tests.engine.gguf_models import write_llama
from tests.engine.projectors import write_eyes


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
