"""One prefix in a file, and what is not one."""

import stat

import numpy as np
import pytest

from llm_backend.engine.kv_cache.prefix import Prefix
from llm_backend.engine.kv_cache.prefix_files.prefix_file import (
    BadPrefix,
    file_bytes,
    read_prefix,
    read_tokens,
    write_prefix,
)

MODEL, OTHER = b"m" * 16, b"o" * 16
PREFIX = Prefix(tokens=[5, 0, 70_000], state=np.arange(200, dtype=np.uint8))


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "a.prefix"
    write_prefix(path, MODEL, PREFIX)
    return path


def test_prefix_file_is_read_as_it_was_written(path):
    read = read_prefix(path, MODEL)

    assert read.tokens == read_tokens(path, MODEL) == PREFIX.tokens
    assert np.array_equal(read.state, PREFIX.state)
    assert path.stat().st_size == file_bytes(len(PREFIX.tokens), PREFIX.state.size)


def test_prefix_file_has_mode_0600_and_leaves_no_temporary_file(path):
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(path.parent.iterdir()) == [path]


def test_prefix_file_of_another_model_is_refused(path):
    with pytest.raises(BadPrefix, match="another model"):
        read_tokens(path, OTHER)


@pytest.mark.parametrize("size", [0, 10, 60, 100])
def test_prefix_file_that_is_truncated_is_refused_before_it_is_read(path, size):
    path.write_bytes(path.read_bytes()[:size])

    with pytest.raises(BadPrefix):
        read_tokens(path, MODEL)


@pytest.mark.parametrize("offset", [20, 25, 30, 45, 70, -1])
def test_prefix_file_checksum_detects_a_changed_byte(path, offset):
    content = bytearray(path.read_bytes())
    content[offset] ^= 1
    path.write_bytes(content)

    with pytest.raises(BadPrefix):
        read_prefix(path, MODEL)


def test_prefix_file_write_error_leaves_no_file(tmp_path):
    (tmp_path / "a.prefix" / "taken").mkdir(parents=True)

    with pytest.raises(OSError, match="directory"):
        write_prefix(tmp_path / "a.prefix", MODEL, PREFIX)
    assert [one.name for one in tmp_path.iterdir()] == ["a.prefix"]
