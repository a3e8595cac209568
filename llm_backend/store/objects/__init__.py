"""Blobs: bytes too large for a row, written once to an object store and read by range.

blobs.py    streams of bytes, written once; `GRACE_S`, the time to claim one
blob.py     references to them in rows
bucket.py   the folder or bucket
orphans.py  blobs without a row, marked deleted when they are due
"""

from llm_backend.store.objects.blob import Blob, Content, size_of
from llm_backend.store.objects.blobs import Blobs
from llm_backend.store.objects.bucket import Bucket

__all__ = ["Blob", "Blobs", "Bucket", "Content", "size_of"]
