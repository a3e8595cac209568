"""Stored responses: values, rows and operations, with background responses and threads.

responses.py        store of responses
background.py       store of background responses
stored_response.py  values
response_rows.py    responses as rows
background_rows.py  background responses as rows
thread_rows.py      a response and its predecessors, as rows
"""
