"""Bridges: chats for upstreams that support only responses or messages, and the reverse.

bridged_model.py   an upstream's model with the interface of a local one
as_chat.py         responses as chat completions
as_response.py     chats as responses
as_message.py      chats and responses as Anthropic's messages
message_events.py  events of such a message
content.py         content of messages in both forms
event_fields.py    type-checked fields of upstream events
untranslatable.py  refusal of fields that have no counterpart
"""
