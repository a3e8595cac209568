"""WebSocket endpoints, which the OpenAPI document does not describe.

endpoints.py           authentication and routing by path
client_socket.py       the client's side of a socket
realtime_socket.py     `/realtime` with a local model
relayed_socket.py      relay to an upstream, message by message
response_socket.py     `/responses`: a request in each message
stream_queues.py       queues of one connection's requests
unstored_responses.py  responses that only their connection can continue
"""

from llm_backend.controllers.websockets.endpoints import WebSocketEndpoints

__all__ = ["WebSocketEndpoints"]
