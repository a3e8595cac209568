"""Addresses that files are fetched from: public ones only, in any notation."""

import pytest
from yarl import URL

from llm_backend.backends.public_session import is_public_address
from llm_backend.backends.web_files import FetchMessages, WebFiles
from llm_backend.errors import InvalidRequest

WORDS = FetchMessages(noun="file", instead="send it", setting="file_hosts")


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "169.254.169.254",
        "224.0.0.1",
        "::1",
        "ff0e::1",
        "::ffff:10.0.0.1",
        "64:ff9b::10.0.0.1",
        "64:ff9b:1::10.0.0.1",
        "::ffff:0:10.0.0.1",
        "::10.0.0.1",
        "fec0::1",
        "2002:a00:1::1",
    ],
)
async def test_internal_addresses_are_private(address):
    name = f"[{address}]" if ":" in address else address
    host = URL(f"http://{name}/").host
    files = WebFiles([host], messages=WORDS, limit_bytes=1, timeout_s=1)

    with pytest.raises(InvalidRequest, match="private addresses"):
        await files.fetch(f"http://{name}/", "here")


@pytest.mark.parametrize("address", ["8.8.8.8", "2001:4860:4860::8888", "64:ff9b::8.8.8.8"])
def test_public_addresses_are_public(address):
    assert is_public_address(address)
