"""Anthropic's Messages API over the models of this server.

create.py        the operations: a message, streamed or whole, and the count of its tokens
chat_body.py     request bodies as those of chat completions
known_fields.py  fields inside of messages, tools and options that are supported
relayed.py       messages passed on to an upstream that answers them
events.py        deltas of a chat as the events of a message, and the message that they add up to
"""
