"""The server writes into its data folder and nowhere else, as its container lets it."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.read_only import read_only_but
from tests.serving import serve

CHAT = {"model": "builtin", "messages": [{"role": "user", "content": "Hello!"}], "max_tokens": 4}


@pytest.fixture
def data() -> Iterator[Path]:
    """A folder with a path short enough for sockets."""
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        folder = Path(name) / "data"
        folder.mkdir()
        yield folder


@pytest.mark.parametrize("processes", [1, 2])
def test_everything_but_the_data_folder_may_be_read_only(data, processes):
    environment = {"TMPDIR": str(data)}  # /tmp of the container
    with serve(
        data,
        *("--processes", str(processes)),
        environment=environment,
        prefix=read_only_but(data),
    ) as served:
        chat = httpx.post(f"{served.base_url}/chat/completions", json=CHAT, timeout=60)
        kept = httpx.get(f"{served.base_url}/chat/completions/{chat.json()['id']}")
        uploaded = httpx.post(
            f"{served.base_url}/files",
            data={"purpose": "user_data"},
            files={"file": ("a.txt", b"x" * 3_000_000)},
        )
        page = httpx.get(f"{served.address}/")
        log = served.log.read_text()

    assert [one.status_code for one in (chat, kept, uploaded, page)] == [200] * 4
    assert "Read-only" not in log
    assert "Traceback" not in log
