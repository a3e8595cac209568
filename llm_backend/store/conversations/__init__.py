"""Stored conversations and their items.

conversations.py        store of conversations
stored_conversation.py  values
conversation_rows.py    conversations as rows
item_rows.py            items as rows
"""
