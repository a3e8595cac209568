"""Chat completions: created, streamed, stored and listed.

create.py      one chat, streamed or whole
stored.py      stored chats
ask.py         a question by GET
translated.py  chats of other APIs
detached.py    operations on detached chats
edits.py       texts edited by an instruction
search.py      search of stored chats
"""
