"""Attempts of one request: which upstreams may get it again."""

from types import SimpleNamespace

import pytest

from llm_backend.backends.upstream.attempts import Attempts
from llm_backend.backends.upstream.upstream_request import UpstreamRequest
from llm_backend.errors import UpstreamFailed

KEY = ((b"idempotency-key", b"1"),)


@pytest.mark.parametrize(("headers", "names"), [((), ("a", "b")), (KEY, ("a",))])
def test_only_a_request_with_a_key_is_pinned_to_its_upstream(headers, names):
    request = UpstreamRequest(method="POST", path="/x", query=b"", headers=headers, body=b"")
    config = SimpleNamespace(honours_idempotency_key=True)
    upstreams = [SimpleNamespace(name=name, config=config) for name in "ab"]
    attempts = Attempts(request, upstreams, tried=["a"])
    is_retried = attempts.prepare_retry(UpstreamFailed("It broke off."))

    assert is_retried is bool(headers)
    assert attempts.names == names
