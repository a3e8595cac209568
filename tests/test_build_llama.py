"""The build of llama.cpp: instruction sets are chosen from what the processor shows."""

import importlib.util
import platform
import re
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


def test_build_enables_instructions_of_the_processor(build_llama):
    found = build_llama.instruction_sets("flags\t\t: fpu sse4_2 avx avx2 fma f16c bmi2 rdpid\n")

    assert found == {
        "GGML_SSE42", "GGML_AVX", "GGML_AVX2", "GGML_FMA", "GGML_F16C", "GGML_BMI2",
    }  # fmt: skip


def test_build_disables_an_incomplete_avx512(build_llama):
    assert "GGML_AVX512" not in build_llama.instruction_sets("flags : avx512f avx512cd\n")
    whole = "flags : avx512f avx512cd avx512vl avx512dq avx512bw avx512_vnni avx512_bf16 amx_int8\n"
    assert {"GGML_AVX512", "GGML_AVX512_VNNI", "GGML_AVX512_BF16"} == (
        build_llama.instruction_sets(whole)
    )


def test_build_disables_amx_and_native(build_llama, monkeypatch):
    monkeypatch.delenv("CMAKE_ARGS", raising=False)
    flags = build_llama.cmake_flags(portable=True)

    assert not any("AMX" in flag for flag in flags)
    if flags:  # processors of other kinds take the compiler's own choice
        assert "-DGGML_NATIVE=OFF" in flags
        assert "-DGGML_AVX512=OFF" in flags


def test_build_caches_wheels_by_flags(build_llama, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    assert build_llama.cache_folder(["-DA=ON"]) != build_llama.cache_folder(["-DA=OFF"])
    assert tmp_path in build_llama.cache_folder([]).parents


def test_build_names_the_packages_of_a_missing_compiler(build_llama, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.delenv("CXX", raising=False)

    assert "apt-get install g++" in build_llama.missing_tool()


def wheels(dist: Path, *policies: str) -> None:
    version = re.findall(r"==(\S+)", (SCRIPT.parents[1] / "requirements/llama.lock").read_text())[0]
    machine = platform.machine()
    for policy in policies:
        (dist / f"llama_cpp_python-{version}-py3-none-{policy}_{machine}.whl").touch()


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="policies are of glibc")
def test_wheel_of_a_release_is_taken_where_it_runs(build_llama, monkeypatch, tmp_path):
    monkeypatch.delenv("CMAKE_ARGS", raising=False)
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    able, unable = build_llama.cmake_flags(portable=True), ["-DGGML_AVX2=OFF"]
    wheels(tmp_path, "manylinux_2_99")

    assert build_llama.release_wheel(able, tmp_path) is None  # of a newer glibc

    wheels(tmp_path, "manylinux_2_5")
    assert "manylinux_2_5" in build_llama.release_wheel(able, tmp_path).name
    assert build_llama.release_wheel(unable, tmp_path) is None
    monkeypatch.setenv("CMAKE_ARGS", "-DGGML_CUDA=ON")
    assert build_llama.release_wheel(able, tmp_path) is None
