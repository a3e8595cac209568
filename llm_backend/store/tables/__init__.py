"""The tables of the store.

Each object that clients can list, except the parts of another one (messages of a chat, items of a
conversation), is a *stored object*:
`object_table()` gives its table the same four columns and an index, so that ids, ownership and
pagination work the same for all.

* `seq` is the primary key and grows with every insert. It orders objects of the same second as
  they were stored; ids are random and could not. Clients never see it.
* `id` is the name that clients use, with OpenAI's prefix.
* `created_at` is in unix seconds, as in OpenAI's API, and orders every list.
* `owner` is the project that the object belongs to; null is the default project. `ownership.py`
  of the database writes it, and hides the objects of other owners.

Bodies are `JSON`, on PostgreSQL too and on purpose: `JSONB` refuses NUL characters and reorders
keys, and an answer must be returned as it was. Searched values have columns or tables of their own.

object_table.py    tables of stored objects, shared columns
chats.py           chat completions
conversations.py   conversations, responses and their items
files.py           files, uploads, orphaned blobs
vector_stores.py   vector stores, their files and texts
batches.py         batches and answers to their lines
jobs.py            jobs
webhooks.py        endpoints and deliveries
detached_chats.py  detached chats in progress
voices.py          cloned voices, consents
administration.py  keys, administered objects, audit log, usage, limits
"""

from llm_backend.store.tables import (
    administration,
    batches,
    chats,
    conversations,
    detached_chats,
    files,
    jobs,
    vector_stores,
    voices,
    webhooks,
)

# All are imported, so that the metadata has every table.
__all__ = [
    "administration",
    "batches",
    "chats",
    "conversations",
    "detached_chats",
    "files",
    "jobs",
    "vector_stores",
    "voices",
    "webhooks",
]
