"""Retention: rows that are too old or too many are deleted, oldest first.

retention.py       limits of age and bytes
retention_rows.py  deletion of rows
sweeper.py         the periodic sweep
"""
