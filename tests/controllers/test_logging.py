"""Bodies and headers in the log, if the settings ask for them."""

import json
import logging

import pytest

from llm_backend.logs import JsonFormatter
from llm_backend.settings import load_settings
from tests.gateway import gateway
from tests.logged import logged
from tests.upstream import Message, post

SECRET = "sk-of-no-other-client"
CHAT = (
    b'{"model": "builtin", "max_tokens": 150, "ignore_eos": true,'
    b' "messages": [{"role": "user", "content": "Tell me of herons."}]}'
)
WITH_KEY = b"authorization: Bearer " + SECRET.encode() + b"\r\n"
METRICS = b"GET /metrics HTTP/1.1\r\nhost: relay\r\n\r\n"


def lines(caplog: pytest.LogCaptureFixture, event: str) -> list[dict[str, object]]:
    """The lines of one event, as a collector of JSON lines reads them."""
    form = JsonFormatter(shows_process=False)
    told = [json.loads(form.format(record)) for record in caplog.records]
    return [line for line in told if line["event"] == event]


async def asked(data_dir, caplog, chat=CHAT, **settings) -> tuple[Message, str]:
    """A chat's answer, and what the metrics say then."""
    caplog.set_level(logging.INFO)
    async with gateway(
        data_dir, models=("builtin",), api_keys=(SECRET,), threads=1, slots=3, **settings
    ) as served:
        caplog.handler.setLevel(logging.INFO)
        logging.getLogger().addHandler(caplog.handler)  # the application has set up its own
        answer = await served.ask(post(chat, more=WITH_KEY))
        metrics = await served.ask(METRICS)
    return answer, metrics.body.decode()


async def test_requests_and_usage_are_logged_without_keys(tmp_path, caplog):
    answer, metrics = await asked(tmp_path, caplog, log_all=True)

    request_id = answer.values(b"x-request-id")[0].decode()
    usage = json.loads(answer.body)["usage"]
    (body,), (took,), ended = (
        lines(caplog, one) for one in ("request_body", "generated", "answered")
    )
    assert json.loads(body["body"]) == json.loads(CHAT)
    assert took["completion_tokens"] == usage["completion_tokens"] == 150
    assert took["prompt_tokens"] == usage["prompt_tokens"]
    assert took["tokens_per_second"] > 0
    assert body["request_id"] == took["request_id"] == ended[0]["request_id"] == request_id
    assert SECRET not in logged(caplog)
    assert 'llm_backend_engine_slots{model="builtin"} 3.0' in metrics
    assert 'llm_backend_queue_seconds_count{model="builtin"} 1.0' in metrics
    labels = (
        'gen_ai_operation_name="chat",gen_ai_provider_name="llm_backend",'
        'gen_ai_request_model="builtin"'
    )
    for name in ("time_to_first_token", "time_per_output_token", "request_duration"):
        assert f"gen_ai_server_{name}_seconds_count{{{labels}}} 1.0" in metrics
    assert "_created" not in metrics


async def test_requests_of_low_priority_count_no_seconds_in_the_queue(tmp_path, caplog):
    chat = CHAT.replace(b"{", b'{"service_tier": "flex", ', 1).replace(b"150", b"1")
    answer, metrics = await asked(tmp_path, caplog, chat)

    assert answer.status == 200
    assert 'llm_backend_queue_seconds_count{model="builtin"} 0.0' in metrics
    assert 'llm_backend_completion_tokens_total{model="builtin"} 1.0' in metrics


def test_prompts_are_logged_only_with_the_setting():
    plain, prompts = load_settings(), load_settings({"log_prompts": True})
    statistics = load_settings({"log_stat": True})

    assert (plain.logs_prompts, plain.logs_statistics) == (False, False)
    assert (prompts.logs_prompts, prompts.logs_statistics) == (True, False)
    assert (statistics.logs_prompts, statistics.logs_statistics) == (False, True)
