"""The database: connections, write queue, schema, and what differs between dialects.

database.py       units of work that read or write
write_queue.py    shared commits
sqlite.py         SQLite: one writer, some readers
postgresql.py     PostgreSQL: a pool
schema.py         revision of the schema
upsert.py         insert or change
bulk_insert.py    many rows at once
named_lock.py     locks by name
driver_errors.py  errors of drivers as errors of the store
"""
