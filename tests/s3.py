"""An S3 server for the tests, in a process of its own."""

import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count

import httpx
import pytest

from tests.ports import free_port

__all__ = ["S3Server", "s3_server"]

_START_TIMEOUT_S = 60.0
_bucket_numbers = count(1)


@dataclass(frozen=True, kw_only=True)
class S3Server:
    """A running server, which believes every key."""

    address: str

    @property
    def environment(self) -> dict[str, str]:
        """AWS's own variables that lead to it."""
        return {
            "AWS_ENDPOINT_URL": self.address,
            "AWS_ALLOW_HTTP": "true",
            "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
        }

    def new_bucket(self) -> str:
        """The URL of a new, empty bucket."""
        name = f"bucket-{next(_bucket_numbers)}"
        httpx.put(f"{self.address}/{name}").raise_for_status()
        return f"s3://{name}/files"

    def names(self, url: str) -> list[str]:
        """Names of the objects in a bucket of `new_bucket`."""
        bucket = url.split("/")[2]
        listed = httpx.get(f"{self.address}/{bucket}?list-type=2").raise_for_status().text
        return [part.partition("</Key>")[0] for part in listed.split("<Key>")[1:]]


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    """One server for all tests."""
    port = free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            yield _started(S3Server(address=f"http://127.0.0.1:{port}"), process)
        finally:
            process.terminate()


def _started(server: S3Server, process: "subprocess.Popen[bytes]") -> S3Server:
    deadline = time.monotonic() + _START_TIMEOUT_S
    while True:
        try:
            httpx.get(server.address)
        except httpx.TransportError:
            assert process.poll() is None, "moto's server has ended"
            assert time.monotonic() < deadline, "moto's server does not answer"
            time.sleep(0.1)
        else:
            return server
