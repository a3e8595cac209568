"""Files: upload, list, download and delete.

operations.py  the operations
download.py    response with a file or a range of it
file_types.py  type and size by purpose
"""
