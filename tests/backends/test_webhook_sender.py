"""Events to webhook endpoints whose names take long to look up."""

import asyncio
import socket
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from llm_backend.backends.webhook_sender import WebhookNotSent, WebhookSender
from tests.patience import comes_true


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
