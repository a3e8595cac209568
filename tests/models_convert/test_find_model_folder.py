"""A model's folder is given by its path or by the name of the package that holds it."""

from pathlib import Path

import pytest
from tiny_bert import write_folder

from llm_backend.model_import import ConversionError, find_model_folder


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A place for installed packages, one of which holds a model and cannot be imported."""
    package = tmp_path / "tiny_model"
    write_folder(package / "model")
    (package / "__init__.py").write_text("raise ImportError('needs torch')")
    (tmp_path / "empty_package").mkdir()
    for name, files in {
        "tiny_model": ["tiny_model/__init__.py", "tiny_model/model/model.safetensors"],
        "empty_package": ["empty_package/__init__.py"],
    }.items():
        info = tmp_path / f"{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (info / "RECORD").write_text("".join(f"{file},,\n" for file in files))
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def test_a_folder_is_itself(tmp_path: Path):
    assert find_model_folder(str(tmp_path)) == tmp_path


@pytest.mark.parametrize("name", ["tiny-model", "tiny_model", "Tiny.Model"])
def test_a_package_is_searched_without_importing_it(site: Path, name):
    assert find_model_folder(name) == site / "tiny_model" / "model"


@pytest.mark.usefixtures("site")
def test_a_package_without_a_model_is_refused():
    with pytest.raises(ConversionError, match="holds no folder with"):
        find_model_folder("empty-package")


@pytest.mark.parametrize("name", ["no-such-package-anywhere", "./no/such/folder", "no.gguf"])
def test_a_name_of_nothing_is_refused(name):
    with pytest.raises(ConversionError, match="is neither a folder nor the name"):
        find_model_folder(name)
