"""What local models answer is counted, however it is asked for."""

import time

import openai

from tests.serving import serve

QUESTION = [{"role": "user", "content": "Who are you?"}]


def test_chats_completions_and_responses_are_counted_whole_and_streamed(tmp_path):
    with (
        serve(tmp_path, "--context-tokens", "256") as served,
        openai.OpenAI(base_url=served.base_url, api_key="none", admin_api_key="none") as client,
    ):
        whole = client.chat.completions.create(model="builtin", messages=QUESTION, max_tokens=4)
        for _ in client.chat.completions.create(
            model="builtin", messages=QUESTION, max_tokens=4, stream=True
        ):
            pass
        client.completions.create(model="builtin", prompt=["One", "Two"], max_tokens=3)
        client.responses.create(model="builtin", input="Who are you?", max_output_tokens=16)
        told = client.admin.organization.usage.completions(
            start_time=int(time.time()) - 60, group_by=["model"]
        )

    (result,) = [one for bucket in told.data for one in bucket.results]
    assert (result.model, result.num_model_requests) == ("builtin", 4)
    assert result.input_tokens >= 3 * whole.usage.prompt_tokens
    assert result.output_tokens >= 4 + 4 + 6 + 1
