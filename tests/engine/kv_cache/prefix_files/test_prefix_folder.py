"""The folder of one model's prefixes, as it is found."""

import logging
import os
import stat
import time
from concurrent.futures import wait
from pathlib import Path

import numpy as np
import pytest

from llm_backend.engine.kv_cache.prefix import Prefix
from llm_backend.engine.kv_cache.prefix_files.prefix_folder import PrefixFolder, open_folder
from llm_backend.engine.messages import PREFIX_BLOCK, Adapter, LoadModel, PrefixLimits
from llm_backend.engine.model import LoadError
from tests.engine.fakes import load_command

LONG_AGO_S = 40 * 86400


@pytest.fixture
def model(tmp_path) -> Path:
    path = tmp_path / "model-00001-of-00002.gguf"
    path.write_bytes(b"GGUF and weights")
    (tmp_path / "model-00002-of-00002.gguf").write_bytes(b"more weights")
    return path


@pytest.fixture
def begin(tmp_path, model) -> LoadModel:
    limits = PrefixLimits(folder=str(tmp_path / "kept"), tokens=64)
    return load_command(model_path=model, prefixes=limits)


def prefix(number: int) -> Prefix:
    return Prefix(tokens=[number] * 100, state=np.full(1000, number, dtype=np.uint8))


def opened(begin: LoadModel, state_format: str = "1") -> PrefixFolder:
    folder = open_folder(begin, state_format)
    assert folder is not None
    return folder


def filled(begin: LoadModel, *numbers: int) -> PrefixFolder:
    folder = opened(begin)
    for number in numbers:
        folder.index.add(folder.write(prefix(number), ()).result(10))
    return folder


def files(begin: LoadModel) -> list[Path]:
    return sorted(Path(begin.prefixes.folder).glob("*/*"), key=lambda path: path.stat().st_mtime)


def found(folder: PrefixFolder) -> list[int]:
    """The numbers below 10 that have a file."""
    return [number for number in range(10) if folder.index.match([number] * 100)]


def test_prefix_folder_is_disabled_by_default():
    assert open_folder(load_command(), "1") is None


def test_prefix_folder_is_indexed_again_after_a_restart(begin):
    filled(begin, 1, 2)
    again = opened(begin)

    assert found(again) == [1, 2]
    assert again.index.bytes == sum(path.stat().st_size for path in files(begin))
    assert again.read(again.index.match([2] * 100).entry.name).result(10).prefix.tokens == [2] * 100


def test_prefix_folder_has_mode_0700(begin):
    filled(begin, 1)
    folder = files(begin)[0].parent

    assert (
        stat.S_IMODE(folder.stat().st_mode) == stat.S_IMODE(folder.parent.stat().st_mode) == 0o700
    )


@pytest.mark.parametrize("part", ["model-00001-of-00002.gguf", "model-00002-of-00002.gguf"])
def test_prefix_folder_removes_files_of_a_changed_model(begin, model, part, caplog):
    filled(begin, 1)
    model.with_name(part).write_bytes(b"GGUF and other weights")
    with caplog.at_level(logging.WARNING):
        again = opened(begin)

    assert found(again) == files(begin) == []
    assert "another model" in caplog.text


def test_prefix_folder_removes_files_of_another_version(begin):
    filled(begin, 1)

    assert found(opened(begin, "2")) == files(begin) == []


@pytest.mark.parametrize(
    "other",
    [
        {"cache_type": "q8_0"},
        {"context_tokens": 100},
        {"flash_attention": True},
        {"adapters": [Adapter(path=__file__)]},
    ],
)
def test_prefix_folder_differs_by_model_settings(begin, model, other):
    filled(begin, 1)
    another = load_command(model_path=model, prefixes=begin.prefixes, **other)

    assert found(opened(another)) == []
    assert found(opened(begin)) == [1]


def test_prefix_folder_removes_invalid_prefixes_but_no_foreign_files(begin):
    filled(begin, 1)
    path = files(begin)[0].parent
    (path / "junk.prefix").write_bytes(b"junk")
    (path / "copy.prefix").write_bytes(files(begin)[0].read_bytes())
    (path / "notes.txt").write_text("a file of another program")
    (path / "b.prefix.1.part").write_bytes(b"unfinished")
    (path / "c.prefix.2.part").write_bytes(b"being written")
    os.utime(path / "b.prefix.1.part", times=(0, 0))
    folder = opened(begin)

    assert found(folder) == [1]
    assert len(list(path.glob("*.prefix"))) == 1
    assert {one.name for one in path.glob("*t")} == {"notes.txt", "c.prefix.2.part"}


def test_prefix_folder_limits_the_size_of_new_and_found_files(begin):
    filled(begin, 1, 2, 3)
    size = files(begin)[0].stat().st_size
    for number, path in enumerate(files(begin)):
        os.utime(path, times=(number, number))
    smaller = PrefixLimits(folder=begin.prefixes.folder, tokens=64, bytes=2 * size + 10)
    folder = opened(load_command(model_path=begin.model_path, prefixes=smaller))

    assert len(files(begin)) == len(folder.index) == 2
    folder.index.add(folder.write(prefix(4), ()).result(10))
    assert len(files(begin)) == 2
    assert found(folder) == [3, 4]


def test_prefix_folder_does_not_write_a_file_above_the_limit(begin):
    tiny = PrefixLimits(folder=begin.prefixes.folder, tokens=64, bytes=1000)
    folder = opened(load_command(model_path=begin.model_path, prefixes=tiny))

    assert folder.write(prefix(1), ()) is None
    assert files(begin) == []


def test_prefix_folder_tolerates_files_removed_by_another_process(begin):
    folder = filled(begin, 1)
    files(begin)[0].unlink()
    reading = folder.read(folder.index.match([1] * 100).entry.name)
    wait([reading], 10)

    assert isinstance(reading.exception(), FileNotFoundError)


def test_prefix_folder_removes_folders_unused_for_long(begin, model):
    other = load_command(model_path=model, cache_type="q8_0", prefixes=begin.prefixes)
    filled(other, 1)
    stranger = Path(begin.prefixes.folder) / "other-program"
    stranger.mkdir()
    then = time.time() - LONG_AGO_S
    for path in (files(other)[0].parent, stranger):
        os.utime(path, times=(then, then))
    opened(begin)

    assert files(other) == []
    assert stranger.exists()


def test_prefix_folder_that_cannot_be_used_is_an_error(begin, tmp_path):
    (tmp_path / "kept").write_text("a file")

    with pytest.raises(LoadError, match=r"prefix files cannot be stored in .*kept"):
        open_folder(begin, "1")


@pytest.mark.parametrize("can_roll_back", [True, False])
def test_longer_state_replaces_a_shorter_one_if_it_can_be_truncated(begin, can_roll_back):
    folder = opened(begin)
    turns = [[1] * 400, [1] * 400 + [2] * 200]
    for tokens in turns:
        kept = Prefix(tokens=tokens, state=np.zeros(8, dtype=np.uint8))
        folder.index.add(folder.write(kept, (), can_roll_back=can_roll_back).result(10))

    assert len(files(begin)) == (1 if can_roll_back else 2)
    edited = folder.index.match([1] * 400 + [3] * 60, can_roll_back=can_roll_back)
    assert edited is not None
    assert edited.tokens == 400 - 400 % PREFIX_BLOCK if can_roll_back else 400
