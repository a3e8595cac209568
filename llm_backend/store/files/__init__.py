"""Stored files: values, rows and operations.

files.py            store of files
stored_file.py      values
file_rows.py        files as rows
file_byte_total.py  counter of all bytes
"""
