"""IPC: messages between the parent process of this server and its API processes, one JSON object a
line, over a Unix socket.

connection.py        MessageConnection: sends and receives; bounds the bytes a peer leaves unread
server.py            MessageServer: accepts connections; ClientSession: serves one of them
pending_requests.py  PendingRequests: numbered requests that wait for their answers
"""

from llm_backend.ipc.connection import Channel, MessageConnection
from llm_backend.ipc.pending_requests import PendingRequests
from llm_backend.ipc.server import ClientSession, MessageServer

__all__ = [
    "Channel",
    "ClientSession",
    "MessageConnection",
    "MessageServer",
    "PendingRequests",
]
