"""Errors: each knows its status, and all look like OpenAI's."""

import importlib
import pkgutil

import pytest

import llm_backend
from llm_backend import error_bodies, errors


def every_error() -> list[type[errors.ApiError]]:
    """Returns the public error classes of the package; private ones differ in the log only."""
    for module in pkgutil.walk_packages(llm_backend.__path__, "llm_backend."):
        if not module.name.endswith((".__main__", ".migrations.env", ".libnucleus", ".libprefill")):
            importlib.import_module(module.name)
    found, waiting = [], [errors.ApiError]
    while waiting:
        kind = waiting.pop()
        found.append(kind)
        waiting += kind.__subclasses__()
    return [kind for kind in found if not kind.__name__.startswith("_")]


@pytest.mark.parametrize("kind", every_error())
def test_every_error_is_in_the_tree_of_the_docstring(kind):
    assert kind.__name__ in (errors.__doc__ or "")
    assert str(kind.status) in (errors.__doc__ or "")


@pytest.mark.parametrize(
    "kind",
    [
        kind
        for kind in every_error()
        if kind.status not in (404, 416, 499) and kind.__name__ != "SchemaUnsupported"
    ],
)
def test_every_error_body_has_all_four_keys(kind):
    body = error_bodies.error_body(kind("what happened", param="model"))

    assert body["error"] == {
        "message": "what happened",
        "type": kind.type,
        "param": "model",
        "code": kind.default_code,
    }


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (errors.Unsupported("No."), "false"),
        (errors.QuotaExceeded("Spent."), "false"),
        (errors.Conflict("Done."), "false"),
        (errors.TokensLimited("Too large."), "false"),
        (errors.TokensLimited("Later.", retry_after_s=1), None),
        (errors.ServiceUnavailable("Busy.", retry_after_s=1), None),
        (errors.Internal("A bug."), None),
    ],
)
def test_permanent_errors_forbid_sdks_to_retry(error, told):
    assert error.headers.get("x-should-retry") == told


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 409, 413, 415, 429, 501, 502, 503])
def test_from_status_returns_the_error_of_the_status(status):
    assert errors.from_status(status, "said so").status == status


def test_from_status_distinguishes_unknown_client_and_server_errors():
    assert errors.from_status(418, "teapot").status == 400
    assert errors.from_status(599, "odd").status == 500


def test_message_quotes_only_the_begin_of_what_a_client_sent():
    error = errors.InvalidRequest(f"There is no `{'a' * 100_000}`.", param="b" * 100_000)

    assert len(error.message) == len(str(error)) == 4096
    assert error.message.startswith("There is no `aaa")
    assert error.param == "b" * 511 + "…"


@pytest.mark.parametrize(
    ("path", "shape"),
    [
        ("/v1/chat/completions", "openai"),
        ("/v1/messages", "anthropic"),
        ("/messages/count_tokens", "anthropic"),
        ("/api/chat", "ollama"),
        ("/v1/api/tags", "ollama"),
        ("/api/v1/token-count", "openai"),  # of text-generation-webui
    ],
)
def test_error_body_has_the_shape_of_its_path(path, shape):
    body = error_bodies.error_body_for(path, errors.Internal("It broke."))

    expected = {
        "openai": error_bodies.error_body(errors.Internal("It broke.")),
        "anthropic": {"type": "error", "error": {"type": "api_error", "message": "It broke."}},
        "ollama": {"error": "It broke."},
    }
    assert body == expected[shape]
