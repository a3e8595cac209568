"""An agent that hears a question, calls its tool, speaks, and is interrupted while it speaks: each
step is a line of JSON."""

import asyncio
import json
import sys
import urllib.request
from typing import Any

from agents import function_tool, set_tracing_disabled
from agents.realtime import RealtimeAgent, RealtimeRunner, RealtimeSession
from agents.realtime.model_inputs import RealtimeModelSendRawMessage

BASE_URL = sys.argv[1]
PATIENCE_S = 50
SETTINGS = {
    "model_name": "builtin",
    "modalities": ["audio"],
    "turn_detection": None,
    "input_audio_transcription": {"model": "hello"},
}


@function_tool
def get_weather(city: str) -> str:
    """Current weather of a city"""
    tell(f"get_weather {city}")
    return f"It is 21 degrees in {city}."


def tell(value: Any) -> None:
    sys.stdout.write(f"{json.dumps(value)}\n")


def speech() -> bytes:
    """A sentence, as 16-bit samples of 24 kHz."""
    body = {"model": "builtin-voice", "voice": "alloy", "response_format": "pcm", "input": "Hello!"}
    request = urllib.request.Request(  # noqa: S310 - the server of the test
        f"{BASE_URL}/audio/speech",
        json.dumps(body).encode(),
        {"content-type": "application/json"},
    )
    with urllib.request.urlopen(request) as answer:  # noqa: S310 - as above
        audio: bytes = answer.read()
    return audio


async def events(session: RealtimeSession) -> Any:
    """Yields the events, those of the model by themselves. Raises for an error."""
    async for event in session:
        if event.type == "error":
            raise RuntimeError(event.error)
        yield event.data if event.type == "raw_model_event" else event


async def hear_and_speak(session: RealtimeSession) -> None:
    """Asks by voice: the model calls the tool, and speaks of what it said."""
    await session.send_audio(speech(), commit=True)
    transcript, size = "", 0
    async for event in events(session):
        if event.type == "input_audio_transcription_completed":
            tell(event.transcript)
            await session.model.send_event(raw("response.create"))
        elif event.type == "transcript_delta":
            transcript += event.delta
        elif event.type == "audio" and hasattr(event, "data"):
            size += len(event.data)
        elif event.type == "agent_end" and transcript:
            break
    tell({"transcript": transcript, "seconds": size / 48_000})


def raw(type: str, **fields: Any) -> Any:
    """Returns an event as it is sent."""
    return RealtimeModelSendRawMessage(message={"type": type, "other_data": fields})


async def interrupt(session: RealtimeSession) -> None:
    """Interrupts at the first audio; the answer keeps the words that were heard."""
    await session.send_message("Hello!")
    written, is_interrupted, item_id = "", False, ""
    async for event in events(session):
        if event.type == "transcript_delta":
            written += event.delta
        elif event.type == "audio" and hasattr(event, "data") and not is_interrupted:
            is_interrupted, item_id = True, event.item_id
            await session.interrupt()
        elif event.type == "agent_end":
            break
    await session.model.send_event(raw("conversation.item.retrieve", item_id=item_id))
    async for event in events(session):
        if event.type == "raw_server_event" and event.data["type"].endswith("item.retrieved"):
            parts = event.data["item"]["content"]
            tell({"written": written, "kept": "".join(part["transcript"] for part in parts)})
            return


async def go_on(session: RealtimeSession) -> None:
    """Asks once more."""
    await session.send_message("Hello!")
    written = ""
    async for event in events(session):
        if event.type == "transcript_delta":
            written += event.delta
        elif event.type == "agent_end":
            break
    tell(written)


async def main() -> None:
    set_tracing_disabled(True)
    agent = RealtimeAgent(name="Weather", tools=[get_weather])
    runner = RealtimeRunner(agent, config={"model_settings": SETTINGS})
    url = f"{BASE_URL.replace('http', 'ws')}/realtime?model=builtin"
    session = await runner.run(model_config={"url": url, "api_key": "none"})
    async with session, asyncio.timeout(PATIENCE_S):
        await hear_and_speak(session)
        await interrupt(session)
        await go_on(session)


asyncio.run(main())
