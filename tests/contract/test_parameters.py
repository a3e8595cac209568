"""Queries become typed values, as the document describes them."""

from typing import Any

import pytest
from starlette.testclient import TestClient

CHATS = "/v1/chat/completions"


@pytest.mark.parametrize(
    ("url", "query"),
    [
        (CHATS, {}),
        (f"{CHATS}?limit=5&order=asc", {"limit": 5, "order": "asc"}),
        (f"{CHATS}?metadata[a]=1&metadata[b]=2", {"metadata": {"a": "1", "b": "2"}}),
        (f"{CHATS}?metadata%5Ba%5D=%C3%A4+b", {"metadata": {"a": "ä b"}}),
        (f"{CHATS}?metadata[]=a", {"metadata": {"": "a"}}),
        (f"{CHATS}?after=", {"after": ""}),
        ("/v1/organization/projects?include_archived=true", {"include_archived": True}),
        ("/v1/organization/projects?include_archived=False", {"include_archived": False}),
        ("/v1/conversations/c/items?include=file_search_call.results", {}),
        ("/v1/organization/costs?start_time=1&project_ids=a&project_ids=b", ["a", "b"]),
        ("/v1/organization/costs?start_time=1&project_ids[]=a&project_ids[]=b", ["a", "b"]),
        ("/v1/organization/costs?start_time=1&project_ids[0]=a", ["a"]),
        ("/v1/organization/audit_logs?effective_at[gt]=12", {"effective_at": {"gt": 12}}),
        ("/v1/organization/audit_logs?actor_ids=a", {"actor_ids[]": ["a"]}),
        ("/v1/assistants?vendor_field=1", {}),
        ("/v1/assistants?limit=1&limit=2", {"limit": 2}),
        (f"/v1/assistants?limit={2**70}", {"limit": 2**70}),
    ],
)
def test_a_query_is_typed(client: TestClient, url: str, query: Any):
    found = client.get(url).json()["query"]

    if isinstance(query, list):
        assert found["project_ids"] == query
    else:
        assert found.items() >= query.items()


@pytest.mark.parametrize(
    ("url", "param", "code"),
    [
        (f"{CHATS}?colour=red", "colour", "unknown_parameter"),
        (f"{CHATS}?limit=many", "limit", "invalid_type"),
        (f"{CHATS}?limit=1.5", "limit", "invalid_type"),
        (f"{CHATS}?limit={'9' * 300}", "limit", "integer_above_max_value"),
        (f"{CHATS}?limit={'9' * 5000}", "limit", "invalid_type"),
        (f"{CHATS}?limit=0", "limit", "integer_below_min_value"),
        (f"{CHATS}?limit=101", "limit", "integer_above_max_value"),
        (f"{CHATS}?limit=1&limit=2", "limit", "invalid_value"),
        (f"{CHATS}?order=up", "order", "invalid_value"),
        (f"{CHATS}?after=%00", "after", "invalid_value"),
        (f"{CHATS}?after=%ff", None, "invalid_value"),
        (f"{CHATS}?metadata=a", "metadata", "invalid_type"),
        (f"{CHATS}?metadata[a]=1&metadata[a]=2", "metadata[a]", "invalid_value"),
        (f"{CHATS}?metadata[a]={'b' * 513}", "metadata.a", "string_above_max_length"),
        (f"{CHATS}?order[]=asc", "order[]", "unknown_parameter"),
        (f"{CHATS}?{'&'.join(f'a{n}=1' for n in range(1001))}", None, "invalid_value"),
        ("/v1/organization/costs", "start_time", "missing_required_parameter"),
    ],
)
def test_a_refused_parameter_is_named(client: TestClient, url: str, param: str | None, code: str):
    response = client.get(url)

    error = response.json()["error"]
    assert response.status_code == 400
    assert (error["param"], error["code"]) == (param, code)


def test_queries_of_relayed_operations_are_free_without_checks(client_for):
    with client_for(check_relayed=False) as client:
        assert client.get("/v1/fine_tuning/jobs?limit=x").status_code == 200
