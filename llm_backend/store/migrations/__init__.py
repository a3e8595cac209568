"""Migrations: the revisions of the tables, run by Alembic on a connection that it is given.

`versions/` has one numbered file a revision, and `REVISIONS` of the module `schema` lists them. To
add one, change the tables, let Alembic write the difference, and review the file:

    python -m llm_backend.store.migrations "files have an expiry"

schema.py     revision of the tables: read, checked, brought to the one of this program
migration.py  an upgrade by Alembic, imported only for one
env.py        Alembic's environment
"""
