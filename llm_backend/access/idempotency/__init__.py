"""Idempotency keys: a repeated request gets the stored answer of the first one.

idempotency_keys.py  `Idempotency-Key` of requests
recorded_answer.py   an answer, recorded and replayed
shared_answers.py    answers shared by servers through the database
"""
