"""Chat completions: created, streamed, stored and listed.

`create.py`          one chat, streamed or whole
`events.py`          deltas as stream events, and the transcript
`fold.py`            chunks as one completion
`chat_memory.py`     storage of chats
`stored.py`          stored chats
`ask.py`             a question by GET
`translated.py`      chats of other APIs
`detached.py`        operations on detached chats
`detached_chats.py`  answers that continue without their clients
`edits.py`           texts edited by an instruction
`search.py`          search of stored chats
"""
