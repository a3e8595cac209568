"""The server's own operations.

operations.py     health, readiness, metrics, info, the OpenAPI document
status.py         event stream of the models' states
recent_errors.py  errors of a key
"""
