"""Targets and `Host` headers, by RFC 9112."""

import pytest

from llm_backend.server.request_head import head_error


def fault(target: bytes, *hosts: bytes, version: str = "1.1") -> str | None:
    return head_error(version, target, [(b"accept", b"*/*"), *((b"host", one) for one in hosts)])


@pytest.mark.parametrize(
    ("target", "host"),
    [
        (b"/v1/models", b"localhost:8000"),
        (b"/v1/models?a=http://b", b"llm.example.com"),
        (b"//b/c", b"a_b"),
        (b"*", b"127.0.0.1"),
        (b"/", b"[::1]:8000"),
        (b"/", b"[::1]"),
        (b"/", b"a:"),
        (b"http://localhost:8000/v1/models", b"localhost:8000"),
        (b"HTTP://LOCALHOST/v1/models?x", b"localhost"),
        (b"http://localhost:80/", b"localhost"),
        (b"https://a/", b"a:443"),
        (b"http://[::1]/", b"[::1]:80"),
    ],
)
def test_request_head_with_one_host_is_valid(target, host):
    assert fault(target, host) is None


@pytest.mark.parametrize(
    "host", [b"a@b", b"a b", b"a, b", b"a/b", b"", b"a:b", b"::1", b"a:1:2", b"\xff"]
)
def test_request_head_refuses_an_invalid_host(host):
    assert "`Host`" in (fault(b"/", host) or "")


@pytest.mark.parametrize(
    ("target", "host"),
    [
        (b"http://evil.test/", b"localhost"),
        (b"http://localhost:8001/", b"localhost:8000"),
        (b"https://localhost/", b"localhost:80"),
        (b"http://a@localhost/", b"localhost"),
        (b"http:///v1/models", b"localhost"),
    ],
)
def test_request_head_refuses_a_target_of_another_host(target, host):
    assert "another host" in (fault(target, host) or "")


@pytest.mark.parametrize("target", [b"evil.test:443", b"ftp://localhost/", b"v1/models"])
def test_request_head_refuses_a_target_that_is_neither_path_nor_url(target):
    assert "neither" in (fault(target, b"localhost") or "")


def test_request_head_requires_one_host_for_http_1_1():
    assert fault(b"/") == "A request of HTTP/1.1 must have a `Host` header."
    assert fault(b"/", b"a", b"a") == "The request has more than one `Host` header."
    assert fault(b"/", version="1.0") is None
    assert "more than one" in (fault(b"/", b"a", b"b", version="1.0") or "")
