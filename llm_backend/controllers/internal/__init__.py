"""Requests of the server to its own application.

`internal_request.py`  ASGI scope and body
`inner_exchange.py`    a request with a client's headers, whose answer is read as it comes
`json_message.py`      JSON messages of a WebSocket
"""
