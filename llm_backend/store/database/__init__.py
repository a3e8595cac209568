"""The database: connections, write queue, owners of rows, and what differs between dialects.

database.py       units of work that read or write
write_queue.py    shared commits
sqlite.py         SQLite: one writer, some readers
postgresql.py     PostgreSQL: a pool
ownership.py      owners of objects
metadata.py       metadata of all tables
write_health.py   failures of writes
upsert.py         insert or change
bulk_insert.py    many rows in few statements
named_lock.py     locks by name
driver_errors.py  errors of drivers as errors of the store
"""
