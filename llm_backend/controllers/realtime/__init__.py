"""Realtime sessions with local models, over a WebSocket, which a key or a client secret opens.

A response is a request to this server's own `/responses` with the items of the conversation. So
keys, permissions, limits, the queue and usage hold for it as for any other request. The socket is
accepted in `controllers/websockets/endpoints.py`.

realtime_session.py   one session: the client's events in, the document's events out
client_events.py      the client's events, validated against the document
event_sender.py       events to the client, with their ids
session_config.py     configuration of a session: defaults, changes, refused fields
conversation.py       items of the conversation, in order
response.py           one response: its request, its events, its end
spoken_text.py        sentences of an answer, read aloud
audio_formats.py      formats of audio
input_turns.py        audio of the client as items of the conversation
input_audio.py        buffer of the client's audio
turn_detection.py     begin and end of speech
transcribed_turn.py   a turn as text
response_events.py    events of `/responses` as realtime events
rate_limit_events.py  rate limits as an event
client_secrets.py     `POST /realtime/client_secrets`, `/sessions`, `/transcription_sessions`
beta_sessions.py      sessions in the form of the beta
local_models.py       models that answer here
session_requests.py   requests to this server's own operations
"""

from llm_backend.controllers.realtime.realtime_session import RealtimeSession

__all__ = ["RealtimeSession"]
