"""Azure's deployments in the path, and the version in the query."""

import pytest

from llm_backend.backends.upstream.azure import azure_path, azure_query
from llm_backend.backends.upstream.config import UpstreamConfig, UpstreamKind
from llm_backend.backends.upstream.http import Upstream
from tests.upstream import FakeUpstream


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/chat/completions", "/openai/deployments/my%20gpt/chat/completions"),
        ("/audio/speech", "/openai/deployments/my%20gpt/audio/speech"),
        ("/images/generations", "/openai/deployments/my%20gpt/images/generations"),
        ("/responses", "/openai/responses"),
        ("/files/file-1/content", "/openai/files/file-1/content"),
    ],
)
def test_operations_with_a_model_have_its_deployment_in_the_path(path: str, expected: str):
    assert azure_path(path, "my%20gpt") == expected


def test_the_clients_own_version_is_kept():
    assert azure_query("", "2024-10-21") == "api-version=2024-10-21"
    assert azure_query("a=1", "2024-10-21") == "a=1&api-version=2024-10-21"
    assert azure_query("api-version=preview", "2024-10-21") == "api-version=preview"


async def test_key_is_sent_in_azures_header():
    async with FakeUpstream() as fake:
        config = UpstreamConfig(
            base_url=f"http://127.0.0.1:{fake.port}", api_key="k", kind=UpstreamKind.AZURE,
            api_version="v1", models=["gpt"], headers=[("X-Team", "a")],
        )  # fmt: skip
        async with Upstream(config) as upstream:
            relayed = await upstream.exchange(
                method="POST", path="/chat/completions", query=b"", body=b"{}", model="gpt",
                headers=[(b"authorization", b"x"), (b"api-key", b"x"), (b"x-team", b"b")],
            )  # fmt: skip
            await relayed.aclose()

    sent = fake.requests[0]
    line = b"POST /openai/deployments/gpt/chat/completions?api-version=v1 HTTP/1.1"
    assert sent.first_line == line
    assert sent.values(b"api-key") == [b"k"]
    assert sent.values(b"authorization") == []
    assert sent.values(b"x-team") == [b"a"]
