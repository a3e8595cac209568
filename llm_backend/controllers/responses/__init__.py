"""Responses API: responses of local models, stored and continued, or relayed.

create.py              creation, and counts of input tokens
stored.py              retrieve, replay, list input items, delete, cancel
compact.py             compaction of a conversation
relayed_background.py  background responses of upstreams
response_observer.py   parser of a relayed response's bytes
input/                 body, items, files and tools as a chat request
loop/                  one response: rounds of the model and of tools
events/                stream events and the response object
background/            queued responses, their worker and followers
"""
