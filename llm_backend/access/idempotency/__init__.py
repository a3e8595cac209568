"""Idempotency keys: a repeated request gets the stored answer of the first one.

idempotency_keys.py  `Idempotency-Key` of requests
recorded_answer.py   an answer, recorded and replayed in this process
shared_answers.py    answers shared by servers: rows of `store/administration/stored_answers.py`
"""
