"""Errors of upstreams: their fields, wherever a server writes them."""

import pytest

from llm_backend.backends.upstream.upstream_errors import error_fields, is_documented


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"error": {"message": "no", "code": 400}}', "no"),
        (b'{"object": "error", "message": "no", "type": "BadRequestError"}', "no"),
        (b'{"error": "no"}', "no"),
        (b'{"detail": "no"}', "no"),
        (b'{"detail": [{"loc": ["body", "stop", 0], "msg": "no"}]}', "stop.0: no"),
        (b'{"detail": [{"msg": "no"}]}', "no"),
        (b'{"detail": []}', None),
        (b'{"detail": [1]}', None),
        (b'{"message": 1}', None),
        (b'[{"error": {"code": 400, "message": "no"}}]', "no"),
        (b"[]", None),
        (b"[1]", None),
        (b"no\n", "no"),
        (b" <html>no</html>", None),
        (b"\xff", None),
        (b"", None),
    ],
)
def test_message_is_found(body, message):
    assert error_fields(body).get("message") == message


@pytest.mark.parametrize(
    ("body", "is_so"),
    [
        (b'{"error": {"message": "no"}}', True),
        (b'{"error": "no"}', False),
        (b'{"detail": "no"}', False),
        (b'[{"error": {"message": "no"}}]', False),
        (b"no", False),
        (b"", False),
    ],
)
def test_document_has_an_error_object(body, is_so):
    assert is_documented(body) is is_so
