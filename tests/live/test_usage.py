"""Usage of local models is counted for every operation."""

import os
import subprocess
import sys
import time

import httpx

from tests.serving import Served, serve
from tests.strict_sdk import StrictOpenAI

QUESTION = [{"role": "user", "content": "Who are you?"}]


def test_chats_completions_and_responses_are_counted_whole_and_streamed(tmp_path):
    with (
        serve(tmp_path, "--context-tokens", "256") as served,
        StrictOpenAI(base_url=served.base_url, api_key="none", admin_api_key="none") as client,
    ):
        whole = client.chat.completions.create(model="builtin", messages=QUESTION, max_tokens=4)
        for _ in client.chat.completions.create(
            model="builtin", messages=QUESTION, max_tokens=4, stream=True
        ):
            pass
        client.completions.create(model="builtin", prompt=["One", "Two"], max_tokens=3)
        client.responses.create(model="builtin", input="Who are you?", max_output_tokens=16)
        httpx.get(f"{served.base_url}/chat/ask", params={"question": "Who are you?"}, timeout=60)
        told = client.admin.organization.usage.completions(
            start_time=int(time.time()) - 120, group_by=["model"]
        )

    (result,) = [one for bucket in told.data for one in bucket.results]
    assert (result.model, result.num_model_requests) == ("builtin", 5)
    assert result.input_tokens >= 4 * whole.usage.prompt_tokens
    assert result.output_tokens >= 4 + 4 + 6 + 1


def test_decisions_are_counted_with_their_cached_tokens(tmp_path):
    question = {"type": "predicate", "instructions": "It is about a parcel."}
    with (
        serve(tmp_path, "--context-tokens", "512") as served,
        StrictOpenAI(base_url=served.base_url, api_key="none", admin_api_key="none") as client,
    ):
        usages = [
            client.decisions.create(
                model="builtin", input="The parcel has arrived. " * 4, questions=[question] * count
            ).usage
            for count in (3, 1)
        ]
        told = client.admin.organization.usage.decisions(
            start_time=int(time.time()) - 120, group_by=["model", "api_source"]
        )

    (result,) = [one for bucket in told.data for one in bucket.results]
    assert (result.model, result.num_model_requests) == ("builtin", 2)
    assert result.input_tokens == sum(one.input_tokens for one in usages)
    cached = [one.input_tokens_details.cached_tokens for one in usages]
    assert (result.input_cached_tokens, cached[0]) == (cached[1], 0)
    assert cached[1] > 0
    assert (result.output_tokens, result.api_source) == (0, "unlabeled")


def test_processes_share_limits_and_follow_the_shell(tmp_path):
    environment = {
        "LLM_BACKEND_REQUESTS_PER_MINUTE": "10",
        "LLM_BACKEND_KEYS_REFRESH_S": "0.2",
        "LLM_BACKEND_API_KEYS": "sk-root",
    }
    body = {"model": "unknown", "messages": QUESTION}
    with serve(
        tmp_path, "--model", "none", "--processes", "2", environment=environment, ready=False
    ) as served:
        statuses = [  # a connection for each, which either process may take
            httpx.post(
                f"{served.base_url}/chat/completions",
                json=body,
                headers={"authorization": "Bearer sk-root"},
            ).status_code
            for _ in range(25)
        ]
        made = subprocess.run(
            [sys.executable, "-m", "llm_backend", "keys", "create", "--config", "/dev/null"],
            env={**os.environ, "LLM_BACKEND_DATA_DIR": str(tmp_path)},
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        headers = {"authorization": f"Bearer {made.stdout.strip()}"}
        deadline = time.monotonic() + 120
        while (known := models_of(served, headers)) != {200}:
            assert time.monotonic() < deadline, known
            time.sleep(0.05)

    # The windows may have changed once meanwhile, before any of them.
    assert 10 <= statuses.count(404) <= 20
    assert statuses.count(404) + statuses.count(429) == 25


def models_of(served: Served, headers: dict[str, str]) -> set[int]:
    """Statuses of several connections, which either process may accept."""
    url = f"{served.base_url}/models"
    return {httpx.get(url, headers=headers).status_code for _ in "1234"}
