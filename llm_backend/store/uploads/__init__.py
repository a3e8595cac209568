"""Uploads in parts: values, rows and operations.

uploads.py        store of uploads
stored_upload.py  values
"""
