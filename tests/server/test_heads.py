"""Heads go out with what follows them at once, and wait for nothing else."""

import asyncio

import pytest

from llm_backend.server.request_head import HeadCoalescingTransport

HEAD = b"HTTP/1.1 200 OK\r\n\r\n"


class Wire(asyncio.Transport):
    """Notes what is sent, each time that something is."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[bytes] = []
        self.is_closed = False

    def write(self, data: bytes) -> None:
        self.sent.append(bytes(data))

    def writelines(self, pieces: tuple[bytes, ...]) -> None:
        self.sent.append(b"".join(pieces))

    def is_closing(self) -> bool:
        return self.is_closed

    def close(self) -> None:
        self.is_closed = True

    def get_extra_info(self, name: str, default: object = None) -> object:
        return f"the wire's {name}"


@pytest.fixture
def wire() -> Wire:
    return Wire()


@pytest.fixture
async def transport(wire: Wire) -> HeadCoalescingTransport:
    return HeadCoalescingTransport(wire, asyncio.get_running_loop())


async def test_heads_are_sent_with_their_body(transport, wire):
    transport.write(HEAD)
    transport.write(b"body")
    transport.write(b"more")
    await asyncio.sleep(0)

    assert wire.sent == [HEAD + b"body", b"more"]


async def test_heads_without_body_are_sent_in_the_next_turn(transport, wire):
    transport.write(HEAD)
    assert wire.sent == []
    await asyncio.sleep(0)
    transport.write(b"body")

    assert wire.sent == [HEAD, b"body"]


async def test_heads_close_sends_written_data(transport, wire):
    transport.write(HEAD)
    transport.close()
    await asyncio.sleep(0)

    assert (wire.sent, wire.is_closed) == ([HEAD], True)


async def test_heads_drop_data_for_a_closing_connection(transport, wire):
    transport.write(HEAD)
    wire.is_closed = True
    await asyncio.sleep(0)

    assert wire.sent == []


async def test_heads_delegate_everything_else_to_the_transport(transport):
    assert transport.get_extra_info("peername") == "the wire's peername"
