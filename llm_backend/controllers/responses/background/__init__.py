"""Background responses.

queueing.py           validation and queue
background_worker.py  answers queued jobs
"""
