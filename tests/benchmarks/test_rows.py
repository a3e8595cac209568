import json
import sys
from pathlib import Path

import pytest

from benchmarks import engine_pairs, gpu
from benchmarks.peers import build
from benchmarks.peers.models import SHAPES
from benchmarks.peers.rows import ROWS
from benchmarks.peers.servers import SERVERS
from benchmarks.peers.workloads import NAMED, RETURNING


@pytest.mark.parametrize("name", ROWS)
def test_row_names_known_servers_and_workloads(name):
    servers, models, workloads = (
        set(str(ROWS[name][option]).split(",")) if option in ROWS[name] else set()
        for option in ("servers", "models", "workloads")
    )

    assert servers <= set(SERVERS)
    assert models <= set(SHAPES)
    assert workloads <= {*NAMED, *RETURNING, "MT", "N15"}


def test_report_of_a_gpu_has_medians_and_ratios():
    figures = [
        {"server": server, "workload": "W1", "tokens_s": speed, "peak_mib": 10}
        for server, speed in (
            ("llm-backend", 30.0),
            ("llm-backend", 50.0),
            ("llm-backend", 40.0),
            ("llama-server", 20.0),
        )
    ]

    lines = gpu.report("A GPU, 1 MiB, 1.0", figures).splitlines()
    assert "A GPU, 1 MiB, 1.0" in lines
    assert lines[-2:] == [
        "| W1 | llm-backend |  | 40 |  |  |  |  |  |  | 10 |",
        "| W1 | llama-server | 2.00 | 20 |  |  |  |  |  |  | 10 |",
    ]


def test_rows_of_a_gpu_are_rows():
    assert set(gpu.ROWS.split(",")) <= ROWS.keys()


def test_row_of_settings_needs_no_program_for_the_limit():
    assert ROWS["settings"]["no_limit"]


def program(path: Path, text: str) -> Path:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def test_benchmark_of_a_gpu_builds_for_that_gpu_alone_and_writes_a_report(
    tmp_path, monkeypatch, capsys
):
    folder, steps = tmp_path / "build", tmp_path / "steps"
    folder.mkdir()
    figures = [{"server": "llm-backend", "workload": "W1", "tokens_s": 40.0}]
    (folder / "engine_peers-gpu-streams.json").write_text(json.dumps(figures))
    program(tmp_path / "nvidia-smi", "echo A GPU, 1 MiB, 1.0")
    program(tmp_path / "nvcc", "exit 1")
    python = program(tmp_path / "python", f'echo "$* $CMAKE_ARGS" >> {steps}')
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setenv("CMAKE_ARGS", "-DA=B")
    monkeypatch.setattr(sys, "executable", str(python))
    monkeypatch.setattr(sys, "argv", ["gpu", "--rows", "gpu-streams"])
    monkeypatch.setattr(gpu, "ROOT", tmp_path)
    monkeypatch.setattr(gpu, "REPORT", folder / "gpu-report.md")

    assert gpu.main() == 0

    flags = "-DA=B -DGGML_CUDA=ON -DCMAKE_CUDA_ARCHITECTURES=native"
    assert steps.read_text().splitlines() == [
        f"-m benchmarks.peers.build --native {flags}",
        f"-m benchmarks.engine_peers --rows gpu-streams {flags}",
    ]
    report = (folder / "gpu-report.md").read_text()
    assert "A GPU, 1 MiB, 1.0" in report
    assert "| W1 | llm-backend |  | 40 |" in report
    assert str(folder) in capsys.readouterr().out


def test_benchmark_of_a_gpu_without_one_names_the_missing_part(tmp_path, monkeypatch, capsys):
    program(tmp_path / "nvidia-smi", "exit 1")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["gpu"])

    assert gpu.main() == 1
    assert "nvcc not found" in capsys.readouterr().out


@pytest.mark.parametrize(("options", "installs"), [([], True), (["--native"], False)])
def test_peers_in_python_are_left_out_on_request(tmp_path, monkeypatch, options, installs):
    steps = []
    for name in ("unpack", "compile_native", "install_python_servers"):
        monkeypatch.setattr(build, name, lambda name=name: steps.append(name))
    for name in ("EXAMPLE_SERVER", "LLAMA_SERVER", "PYTHON"):
        monkeypatch.setattr(build, name, tmp_path / name)
    monkeypatch.setattr(sys, "argv", ["build", *options])

    assert build.main() == 0
    assert ("install_python_servers" in steps) is installs


def test_a_peer_without_answers_has_a_ratio_too(capsys):
    found = {"llm-backend": [{"tokens_s": 30.0}], "vllm": [{"tokens_s": 0.0, "failed": 16}]}

    engine_pairs.show("W16", found)

    assert "W16: inf of its tokens per second" in capsys.readouterr().out
