"""Metered operations: every operation is metered or exempt, and the model of a request."""

from types import SimpleNamespace
from typing import Any

import pytest

from llm_backend.access.authentication.named_models import find_named_models
from llm_backend.access.usage.exempt_operations import EXEMPT
from llm_backend.access.usage.metered_operations import METERED, MeteredOperation, model_of
from llm_backend.contract import load_document
from llm_backend.contract.forms.form_model import FormHead
from llm_backend.contract.unknown_operation import UNKNOWN

CHAT = METERED["createChatCompletion"]


def test_every_operation_is_counted_or_exempt_for_a_reason():
    operations = load_document().operations.values()
    asked = {one.operation_id for one in operations if not (one.is_public or one.administers)}

    assert set(METERED) | set(EXEMPT) == asked | {UNKNOWN.operation_id}
    assert not set(METERED) & set(EXEMPT)


def test_operations_on_the_whole_account_of_an_upstream_are_for_administrators():
    operations = load_document().operations

    for one in ("retrieveSafetyAlert", "retrieveSafetyCase", "createOrganizationExternalKey"):
        assert operations[one].administers


def test_samples_of_webhooks_count_as_requests():
    assert not METERED["testWebhookEndpoint"].requires_model


def asks(metered: MeteredOperation, *, method: str = "POST", **more: Any) -> str:
    given = {"body": None, "form_head": None, "query": {}, **more}
    operation = SimpleNamespace(method=method)
    return model_of(SimpleNamespace(operation=operation, **given), metered)


@pytest.mark.parametrize(
    ("body", "model"),
    [
        ({"model": "m", "session": {"model": "other"}}, "m"),
        ({"session": {"type": "realtime", "model": "m"}}, "m"),
        ({"session": {"audio": {"input": {"transcription": {"model": "m"}}}}}, "m"),
        ({"grader": {"graders": {"a": {"type": "score_model", "model": "m"}}}}, "m"),
        ({"model": None, "data_source": {"model": "m"}}, "m"),
        ({"model": "m" * 1000}, "m" * 256),
        ({"messages": [{"model": "m"}], "metadata": {"model": "m"}, "model": ["m"]}, ""),
    ],
)
def test_a_body_names_its_model_at_the_top_or_below(body, model):
    assert asks(CHAT, body=body) == model


def test_a_form_names_its_model_and_a_query_only_where_there_is_no_body():
    query = {"model": "said"}

    assert asks(CHAT, form_head=FormHead(read=b"ears", name="ears"), query=query) == "ears"
    assert asks(CHAT, form_head=FormHead(read=b"", session_model="voice"), query=query) == "voice"
    assert asks(CHAT, query=query) == ""
    assert asks(CHAT, method="GET", query=query) == "said"
    assert asks(METERED["createModeration"], body={}) == "omni-moderation-latest"


def test_models_are_found_outside_free_content_of_clients():
    body = {
        "model": "a",
        "Model": "z",
        "tools": [{"type": "image_generation", "model": "b"}],
        "method": {"reinforcement": {"grader": {"model": "c"}}},
        "text": {"format": {"schema": {"examples": [{"model": "no"}]}}},
        "data_source": {"source": {"content": [{"item": {"model": "no"}}]}},
        "messages": [{"content": [{"model": "no"}]}],
        "functions": [{"input_examples": [{"model": "no"}]}],
        "chat_template_kwargs": {"model": "no"},
    }

    assert list(find_named_models(body)) == ["a", "z", "b", "c"]
    assert list(find_named_models([1, None])) == []
