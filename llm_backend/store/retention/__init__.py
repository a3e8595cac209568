"""Retention: rows that are too old or too many are deleted, oldest first.

Rows with an expiry of their own, such as files with `expires_after`, are deleted elsewhere: by the
method `expire` of the class that stores them. `Access.expire` of `access/wiring.py` deletes old
entries of the audit log. `open_sweeper` of `app/stores.py` lists all periodic deletions.

retention.py       limits of age and bytes: `retain_days`, `history_limit_bytes`
retention_rows.py  deletion of rows
sweeper.py         the periodic sweep
"""
