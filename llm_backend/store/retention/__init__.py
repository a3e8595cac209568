"""Retention: rows that are too old or too many are deleted, oldest first.

Rows with an expiry of their own (`expires_after` of a file, say) are deleted by `expire` of their
store, entries of the audit log by that of `access/wiring.py`. `open_sweeper` of `app/stores.py`
lists all that is swept.

retention.py       limits of age and bytes: `retain_days`, `history_limit_bytes`
retention_rows.py  deletion of rows
sweeper.py         the periodic sweep
"""
