"""ASGI application of the contract: routing, dispatch to handlers, and errors.

connexion_app.py      Connexion's routing, authentication and dispatch
envelope.py           request id, `Date` header, `/v1` prefix
model_field.py        the model of an older client's path, put into its body
error_handlers.py     every exception as an error body
error_responses.py    error responses of middleware outside of the contract
"""
