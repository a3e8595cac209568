"""HTTP server: the application on a socket, in one process or several, with TLS.

serving.py          sockets opened and served
tls.py              key, certificate, chain
api_server.py       uvicorn in this process
processes.py        several API processes and their parent
api_child.py        the parent's side of one API process
api_process.py      an API process
process_messages.py messages between these two
private_folder.py   folder of sockets and counters
http_protocol.py    HTTP/1.1, with bounds
socket_protocol.py  WebSockets
request_head.py     checks of target and `Host`; heads sent with the first bytes
request_pace.py     requests that arrive too slowly
"""

from llm_backend.server.serving import CannotServe, listening, serve

__all__ = ["CannotServe", "listening", "serve"]
