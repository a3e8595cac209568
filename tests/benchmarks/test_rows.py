import pytest

from benchmarks import engine_pairs, gpu
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


def test_a_peer_without_answers_has_a_ratio_too(capsys):
    found = {"llm-backend": [{"tokens_s": 30.0}], "vllm": [{"tokens_s": 0.0, "failed": 16}]}

    engine_pairs.show("W16", found)

    assert "W16: inf of its tokens per second" in capsys.readouterr().out
