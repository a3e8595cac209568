"""Shared objects of one server, which `app` builds and each operation receives.

services.py                `Services`: all of them
chat_recorder.py           storage of chats
detached_answers.py        requests that are not ended by a disconnect
detached_chats.py          chats that go on without their client
detached_peers.py          those of other processes
shared_detached_chats.py   those of other servers
stored_responses.py        context of a conversation, loaded and stored
background_responses.py    clients that follow a response
server_tools.py            interface of tools that the server runs
listed_items.py            items of a page, in the form of their list
file_texts.py              text of files
input_images.py            images as data: URLs
vector_store_services.py   database, vector index and embedding models of vector stores
embedders.py               embedding models, and the choice of one
mcp_endpoint.py            the MCP library's server, which runs from the first message on
session_limit.py           limit of the realtime sessions of one process
unknown_field_reporter.py  request fields that the document does not define
status_board.py            states of all models, polled
error_buffer.py            ring buffer of errors
"""

from llm_backend.controllers.services.services import Services

__all__ = ["Services"]
