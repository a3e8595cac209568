"""Shared parts of administrative operations on records.

changes.py          one change: audit entry, refresh of the keyring, error translation
resource.py         one kind of records: listed, found, added, changed and deleted
listing.py          cursor pagination of lists
single_settings.py  settings with one value for a project or the organization
key_objects.py      response objects of API keys
"""
