"""Answers in the shape of the document: chunks, event streams, lists, errors.

chunks.py          deltas as chunks and objects
chat_events.py     deltas of a chat as stream events, and the transcript
chat_fold.py       chunks as one completion
event_stream.py    server-sent events
closing_stream.py  streams that close what they read
json_response.py   JSON responses and lists
obfuscation.py     padding beside the pieces of a stream
vectors.py         embedding vectors as numbers
page_query.py      pagination parameters
poll_interval.py   header with the time until the next poll
store_errors.py    store errors as API errors
"""
