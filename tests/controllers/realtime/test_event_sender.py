"""Events to the client of a realtime session."""

import asyncio
import json

from llm_backend.controllers.realtime.event_sender import EventSender, item_events


class SlowClient:
    """A client that takes its time for each event."""

    def __init__(self) -> None:
        self.read: list[str] = []

    async def send(self, message: str) -> None:
        for _ in range(5):
            await asyncio.sleep(0)
        self.read.append(json.loads(message)["type"])


async def test_events_that_are_sent_together_have_no_others_between_them():
    client = SlowClient()
    sender = EventSender(client)

    await asyncio.gather(
        sender.send({"type": "input_audio_buffer.committed"}, *item_events({"id": "a"}, None)),
        sender.send({"type": "response.output_item.added"}),
    )

    assert client.read == [
        "input_audio_buffer.committed",
        "conversation.item.added",
        "conversation.item.done",
        "response.output_item.added",
    ]
