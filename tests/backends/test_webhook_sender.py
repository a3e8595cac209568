"""Events to webhook endpoints: addresses that are refused, names that take long to look up."""

import asyncio
import socket
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from llm_backend.backends.webhook_sender import (
    WebhookAnswer,
    WebhookNotSent,
    WebhookSender,
    WebhookUrlRefused,
)
from tests.patience import comes_true


@pytest.mark.parametrize(
    "host",
    [
        "127.1",
        "2130706433",
        "0177.0.0.1",
        "0x7f.1",
        "0x7F000001",
        "10.1",
        "127.0.0.1.",
        "a.b.1",
        "[::1]",
    ],
)
async def test_addresses_in_any_form_are_refused(host):
    with pytest.raises(WebhookUrlRefused):
        WebhookSender((), timeout_s=1).check(f"https://{host}/")


@pytest.mark.parametrize("host", ["example.com", "1.example", "8.8.8.8", "1e100.net", "0xa.0xz"])
async def test_public_names_and_addresses_are_taken(host):
    WebhookSender((), timeout_s=1).check(f"https://{host}/")


async def test_slow_name_lookups_leave_the_threads_of_the_event_loop_to_others(monkeypatch):
    begun, ends = threading.Semaphore(0), threading.Event()

    def look_up(*_, **__):
        begun.release()
        ends.wait()
        raise socket.gaierror

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
    sender = WebhookSender((), timeout_s=60)
    sending = asyncio.create_task(sender.send("https://slow.example/", b"{}", {}))
    try:
        assert await comes_true(lambda: begun.acquire(blocking=False), within_s=30)

        async with asyncio.timeout(30):
            assert await asyncio.to_thread(lambda: "short work") == "short work"
    finally:
        ends.set()
    with pytest.raises(WebhookNotSent):
        await sending


@pytest.mark.parametrize(
    ("retry_after", "pause_s"),
    [
        ("120", 120),
        ("Thu, 01 Jan 1970 00:05:00 GMT", 200),
        ("Thu, 01 Jan 1970 00:00:05 GMT", 0),
        ("Mon, 01 Jan 2030 00:00:00 +99999999999999", 0),
        ("Mon, 01 Jan 99999999999 00:00:00 GMT", 0),
        ("soon", 0),
        ("", 0),
    ],
)
def test_pause_is_read_from_seconds_or_a_date(retry_after, pause_s):
    assert WebhookAnswer(status=503, retry_after=retry_after).pause_s(100) == pause_s
