"""Chat completions: created, streamed, stored and listed.

`create.py`       one chat, streamed or whole
`events.py`       deltas as stream events, and the transcript
`fold.py`         chunks as one completion
`chat_memory.py`  storage of chats
`stored.py`       stored chats
`detached*.py`    chats that go on without their client
`ask.py`          a question by GET
`translated.py`   chats of other APIs
"""
