"""Headers and memory footprints of model files."""

import os
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFWriter

from llm_backend.builtin import BUILTIN_PATH
from llm_backend.model_files import (
    GgufHeader,
    HeaderError,
    ModelShape,
    available_memory_bytes,
    find_model_file,
    find_projector_file,
    footprint,
    is_whisper_file,
    list_model_files,
    machine_memory_bytes,
    memory,
    model_costs,
    read_header,
    read_model_file,
    read_whisper_header,
)
from tests.engine.gguf_models import write_bert, write_llama
from tests.gguf_file import write_gguf
from tests.whisper_models import write_whisper


def test_header_of_the_builtin_model_is_parsed():
    header = read_header(BUILTIN_PATH)

    assert header.architecture == "llama"
    assert header.of_architecture("context_length") == 2048
    assert header.values["tokenizer.ggml.tokens.length"] == header.of_architecture("vocab_size")
    assert 2_000_000 < header.parameters < 2_500_000
    assert 0 < BUILTIN_PATH.stat().st_size - header.weights_bytes < 200_000


def test_footprint_counts_cells_of_every_layer_slot_and_token(tmp_path):
    header = read_header(write_llama(tmp_path / "tiny.gguf"))  # 2 layers, 2 of 4 heads, 16 wide
    shape = ModelShape(context_tokens=100, slots=3)

    assert footprint(header, shape).cells == 2 * 2 * (16 + 16) * 2 * 100 * 3
    quantized = footprint(header, ModelShape(context_tokens=100, slots=3, cache_type="q8_0"))
    assert quantized.cells == footprint(header, shape).cells * 34 // 64
    own = footprint(header, ModelShape(slots=1))
    assert own.cells == 2 * 2 * (16 + 16) * 2 * 512  # as long as it was trained for


def test_footprint_of_an_embedding_model_has_no_cells(tmp_path):
    header = read_header(write_bert(tmp_path / "bert.gguf"))

    assert footprint(header, ModelShape()).cells == 0
    assert footprint(header, ModelShape()).total > header.weights_bytes


def test_header_joins_the_parts_of_a_model(tmp_path):
    whole = write_llama(tmp_path / "whole.gguf").read_bytes()
    for part in (1, 2):
        (tmp_path / f"m-0000{part}-of-00002.gguf").write_bytes(whole)

    alone = read_header(tmp_path / "whole.gguf")
    both = read_header(tmp_path / "m-00001-of-00002.gguf")

    assert both.weights_bytes == 2 * alone.weights_bytes
    (tmp_path / "m-00002-of-00002.gguf").unlink()
    with pytest.raises(HeaderError, match=r"m-00002-of-00002.gguf cannot be read"):
        read_header(tmp_path / "m-00001-of-00002.gguf")


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"", "is not a GGUF file"),
        (b"GGUF", "is cut short: its header would end at byte 8, and it has 4"),
        (b"GGUF" + struct.pack("<I", 9), "version 9"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 1 << 60), "announces"),
        (b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 1 << 50), "announces"),
        (b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 1) + b"k" + struct.pack("<I", 99), "unknown type"),
        (
            b"GGUF" + struct.pack("<IQQQ", 3, 1, 0, 1) + b"t" + struct.pack("<I", 1 << 30),
            "announces",
        ),
    ],
)
def test_header_error_is_one_sentence(tmp_path, data, sentence):
    path = tmp_path / "broken.gguf"
    path.write_bytes(data)

    with pytest.raises(HeaderError, match=sentence):
        read_header(path)


def test_header_detects_truncation_at_any_byte(tmp_path):
    whole = write_llama(tmp_path / "tiny.gguf").read_bytes()
    path = tmp_path / "cut.gguf"
    for length in [*range(4, 12_000, 97), *range(12_000, len(whole), 9999), len(whole) - 1]:
        path.write_bytes(whole[:length])
        with pytest.raises(HeaderError, match=rf"cut\.gguf is cut short: .* it has {length:,}; "):
            read_header(path)
    path.write_bytes(whole + b"more")
    assert read_header(path).tensors == read_header(tmp_path / "tiny.gguf").tensors


def test_header_names_a_truncated_part(tmp_path):
    whole = write_llama(tmp_path / "whole.gguf").read_bytes()
    for part, data in ((1, whole), (2, whole[:-1])):
        (tmp_path / f"m-0000{part}-of-00002.gguf").write_bytes(data)

    with pytest.raises(HeaderError, match=r"m-00002-of-00002\.gguf is cut short"):
        read_header(tmp_path / "m-00001-of-00002.gguf")


@pytest.mark.parametrize("kind", [kind for kind in GGMLQuantizationType if kind.value < 42])
def test_header_has_the_size_of_every_type(tmp_path, kind):
    numbers, size = GGML_QUANT_SIZES[kind]
    path = tmp_path / "one.gguf"
    writer = GGUFWriter(path, "llama")
    writer.add_tensor("t", np.zeros((2, size), dtype=np.uint8), raw_dtype=kind)
    write_gguf(writer, path)
    data = (tmp_path / "one.gguf").read_bytes()
    assert read_header(tmp_path / "one.gguf").parameters == 2 * numbers

    padded = len(data) - (-(2 * size) % 32)
    (tmp_path / "one.gguf").write_bytes(data[: padded - 1])
    with pytest.raises(HeaderError, match=f"its tensors would end at byte {padded:,}, and it has"):
        read_header(tmp_path / "one.gguf")


@pytest.mark.parametrize("layers", ["x", -1, 1_000_000])
def test_header_ignores_senseless_numbers(layers):
    values = {
        "general.architecture": "llama",
        "llama.block_count": layers,
        "llama.context_length": -1,
    }
    header = GgufHeader(path=Path("x"), values=values, tensors=0, parameters=0, weights_bytes=5)

    assert model_costs(header).layers == ()
    assert footprint(header, ModelShape()).weights == 5
    assert footprint(header, ModelShape()).cells == 0


@pytest.mark.skipif(sys.platform != "linux", reason="only there the system reports it")
def test_machine_memory_is_positive_and_partly_free():
    assert 100_000_000 < available_memory_bytes() < machine_memory_bytes()


UNIFIED = "0::/app/server\n"
SEPARATE = "5:cpu:/\n4:memory:/app/server\n0::/\n"


@pytest.mark.parametrize(
    ("groups", "folder", "limits", "whole", "free"),
    [
        (UNIFIED, "app/server", ("memory.max", "max"), 8 << 30, 6 << 30),
        (UNIFIED, "app/server", ("memory.max", "1000"), 1000, 600),
        (UNIFIED, "app", ("memory.max", "1000"), 1000, 600),
        (UNIFIED, "app/server", ("memory.high", "1000"), 1000, 600),
        ("no such line\n" + UNIFIED, "", ("memory.max", "1000"), 1000, 600),
        (UNIFIED, "", ("memory.max", "1000"), 1000, 600),
        (SEPARATE, "memory/app/server", ("memory.limit_in_bytes", "1000"), 1000, 300),
        ("", "", ("memory.max", "1000"), 8 << 30, 6 << 30),
    ],
    ids=[
        *("no limit", "its own", "one around it", "throttled", "something unknown beside it"),
        *("a container's", "the older kind", "none"),
    ],
)
def test_free_memory_respects_control_groups(
    tmp_path, monkeypatch, groups, folder, limits, whole, free
):
    proc, mounted = tmp_path / "proc", tmp_path / "groups"
    (proc / "self").mkdir(parents=True)
    (proc / "self" / "cgroup").write_text(groups)
    (proc / "meminfo").write_text(f"MemTotal: 1 kB\nMemAvailable:    {6 << 20} kB\n")
    (mounted / folder).mkdir(parents=True)
    name, limit = limits
    (mounted / folder / name).write_text(f"{limit}\n")
    (mounted / folder / "memory.stat").write_text(
        "file 900\nanon 300\nshmem 100\ntotal_rss 600\ntotal_shmem 100\n"
    )
    monkeypatch.setattr(memory, "_PROC", proc)
    monkeypatch.setattr(memory, "_GROUPS", mounted)
    monkeypatch.setattr(os, "sysconf", {"SC_PHYS_PAGES": 2 << 20, "SC_PAGE_SIZE": 4096}.get)

    assert machine_memory_bytes() == whole
    assert available_memory_bytes() == free


@pytest.mark.parametrize(
    ("quant", "found"),
    [
        ("Q6_K", "m-Q6_K.gguf"),
        ("q6_k_l", "m-Q6_K_L.gguf"),
        ("F16", "m-F16-00001-of-00002.gguf"),
        ("BF16", "BF16/m-00001-of-00002.gguf"),
    ],
)
def test_a_stored_quantization_is_found_as_it_was_pulled(tmp_path, quant, found):
    for name in ("m-Q6_K.gguf", "m-Q6_K_L.gguf", "m-F16-00001-of-00002.gguf", found):
        path = tmp_path / "o" / "n" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()

    assert find_model_file(f"o/n:{quant}", tmp_path) == tmp_path / "o" / "n" / found


def test_a_stored_projector_is_found_by_its_type(tmp_path):
    for name in ("mmproj-BF16.gguf", "mmproj-F16.gguf"):
        (tmp_path / "o" / "n").mkdir(parents=True, exist_ok=True)
        (tmp_path / "o" / "n" / name).touch()

    assert find_projector_file("o/n:F16", tmp_path).name == "mmproj-F16.gguf"


def test_a_whisper_file_is_found_and_has_its_memory(tmp_path):
    path = write_whisper(tmp_path / "o" / "n" / "ggml-base.bin")
    english = write_whisper(path.with_name("ggml-base.en.bin"), is_multilingual=False)
    path.with_name("pytorch_model.bin").write_bytes(b"weights")

    assert [is_whisper_file(one) for one in (path, english)] == [True, True]
    assert list_model_files(tmp_path) == [path, english]
    assert find_model_file("o/n:base", tmp_path) == path
    assert find_model_file("o/n:base.en", tmp_path) == english
    header = read_whisper_header(path)
    assert header.is_multilingual
    assert not read_whisper_header(english).is_multilingual
    assert header.file_bytes < header.memory_bytes < 200e6
    path.write_bytes(path.read_bytes()[:10_000])
    with pytest.raises(HeaderError, match="is cut"):
        read_model_file(path)


def test_whisper_file_that_is_cut_anywhere_is_refused(tmp_path):
    whole = write_whisper(tmp_path / "ggml-base.bin").read_bytes()
    cut = tmp_path / "ggml-cut.bin"
    cuts = [1, 47, 48, 60, 70_000, len(whole) // 2, len(whole) * 6 // 10, len(whole) - 1]
    cuts += [len(whole) - 4 * 64, len(whole) - 4 * 64 - 12 - 4]  # in and before the last tensor

    for size in cuts:
        cut.write_bytes(whole[:size])
        with pytest.raises(HeaderError):
            read_whisper_header(cut)
    cut.write_bytes(whole)
    assert read_whisper_header(cut).file_bytes == len(whole)
