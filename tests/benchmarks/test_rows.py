import pytest

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
