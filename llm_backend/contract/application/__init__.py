"""ASGI application of the contract: routing, dispatch to handlers, and errors in OpenAI's shape.

`connexion_app.py`      Connexion's routing, authentication and dispatch
`envelope.py`           request id, `Date` header, `/v1` prefix
`unknown_operation.py`  paths outside of the document: relayed or refused
`error_handlers.py`     every exception as OpenAI's error body
`refusal.py`            error responses of middleware outside of the contract
`unused_imports.py`     libraries that Connexion imports and this server does not use
"""
