"""The build of llama.cpp: instruction sets are chosen from what the processor shows."""

import importlib.util
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "scripts" / "build_llama.py"


@pytest.fixture(scope="module")
def build_llama():
    spec = importlib.util.spec_from_file_location("build_llama", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_what_the_processor_shows_is_turned_on(build_llama):
    found = build_llama.instruction_sets("flags\t\t: fpu sse4_2 avx avx2 fma f16c bmi2 rdpid\n")

    assert found == {
        "GGML_SSE42", "GGML_AVX", "GGML_AVX2", "GGML_FMA", "GGML_F16C", "GGML_BMI2",
    }  # fmt: skip


def test_half_an_avx512_is_none(build_llama):
    assert "GGML_AVX512" not in build_llama.instruction_sets("flags : avx512f avx512cd\n")
    whole = "flags : avx512f avx512cd avx512vl avx512dq avx512bw avx512_vnni avx512_bf16 amx_int8\n"
    assert {"GGML_AVX512", "GGML_AVX512_VNNI", "GGML_AVX512_BF16"} == (
        build_llama.instruction_sets(whole)
    )


def test_amx_is_never_turned_on_and_native_is_off(build_llama, monkeypatch):
    monkeypatch.delenv("CMAKE_ARGS", raising=False)
    flags = build_llama.cmake_flags(portable=True)

    assert not any("AMX" in flag for flag in flags)
    if flags:  # processors of other kinds take the compiler's own choice
        assert "-DGGML_NATIVE=OFF" in flags
        assert "-DGGML_AVX512=OFF" in flags


def test_wheels_of_other_flags_are_kept_apart(build_llama, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    assert build_llama.cache_folder(["-DA=ON"]) != build_llama.cache_folder(["-DA=OFF"])
    assert tmp_path in build_llama.cache_folder([]).parents


def test_a_missing_compiler_is_a_sentence_that_says_what_to_install(build_llama, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.delenv("CXX", raising=False)

    assert "apt-get install g++" in build_llama.missing_tool()
