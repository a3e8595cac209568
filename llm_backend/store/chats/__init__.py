"""Stored chats: values, rows and operations.

chats.py        store of chats
detached_chat_leases.py  detached chats in progress
stored_chat.py  values, and checks of them
chat_texts.py   texts that a search reads, and titles
search.py       search by words
word_index.py   index of words, in each dialect
words.py        words of texts, and excerpts
"""
