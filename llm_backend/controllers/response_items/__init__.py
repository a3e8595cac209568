"""Items of responses and conversations: as sent, as stored, and as messages of a chat.

items.py              forms of items
input_parts.py        file and image parts
client_tools.py       functions and custom tools of the client
compaction_items.py   items with a summary
encrypted_content.py  opaque content of items
stored_events.py      fields beside stored events
"""
