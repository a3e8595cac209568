"""The server's own operations.

`operations.py`     health, readiness, metrics, info, the OpenAPI document
`status.py`         event stream of the models' states
`status_board.py`   states of all models, polled
`recent_errors.py`  errors of a key
`error_buffer.py`   ring buffer of errors
"""
