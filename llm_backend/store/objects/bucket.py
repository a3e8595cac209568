"""The object store: a folder, or a bucket with S3's API. The only module that imports obstore.

obstore is imported for the first object, as it takes 8 MB of memory.
Credentials, region and endpoint of S3 come from AWS's own variables, which obstore reads itself
(`AWS_ACCESS_KEY_ID`, `AWS_REGION`, `AWS_ENDPOINT_URL`, ...).

In a folder obstore renames a written file to its name but flushes nothing, and it neither lists nor
deletes the partial files of a killed process. This module flushes files and deletes partial ones.
"""

import asyncio
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from llm_backend.store.errors import CannotOpen, ObjectMissing, ObjectsUnavailable

_RETRIES: Any = {"max_retries": 3, "retry_timeout": timedelta(seconds=20)}
_NO_BUCKET = "<Code>NoSuchBucket</Code>"  # in S3's answer, which is a 404 as for an object


class Bucket:
    """Named objects at `url`, `file:///FOLDER` or `s3://BUCKET/PREFIX`; opened on first use.

    Raises `CannotOpen` for another kind of URL.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        is_folder = parts.scheme == "file" and not parts.netloc and parts.path.startswith("/")
        if not is_folder and not (parts.scheme == "s3" and parts.netloc):
            raise CannotOpen("The object store's URL is neither file:///FOLDER nor s3://BUCKET.")
        self._url = url
        self._folder = Path(unquote(parts.path)) if is_folder else None

    async def put(self, name: str, data: bytes) -> None:
        """Stores a whole object; durable on return. Raises `ObjectsUnavailable`."""
        with _translate_errors():
            await self._store.put_async(name, data, use_multipart=False)
            if self._folder:
                path = self._folder / name
                await asyncio.to_thread(_flush, path, path.parent, self._folder)

    async def get(self, name: str, start: int, length: int) -> bytes:
        """A range of bytes of an object. Raises `ObjectsUnavailable`, `ObjectMissing`."""
        with _translate_errors():
            try:
                found = await self._store.get_range_async(name, start=start, length=length)
            except FileNotFoundError as error:
                # A wrong setting, or a folder that is not mounted: a person can correct it.
                if _NO_BUCKET in str(error) or await asyncio.to_thread(self._is_empty_folder):
                    raise
                raise ObjectMissing(f"The object store lacks the object `{name}`.") from error
            return bytes(found)

    def _is_empty_folder(self) -> bool:
        return self._folder is not None and not any(self._folder.iterdir())

    async def remove(self, prefix: str) -> None:
        """Deletes the objects, if any, whose names begin with `prefix` and a slash."""
        with _translate_errors():
            if self._folder:
                await asyncio.to_thread(_remove_tree, self._folder / prefix)
                return
            async for page in self._store.list(prefix):
                await self._store.delete_async([one["path"] for one in page])

    @cached_property
    def _store(self) -> Any:  # Any: obstore is imported here only
        from obstore.store import LocalStore, S3Store

        if self._folder:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            _flush(self._folder.parent)
            return LocalStore(self._folder)
        return S3Store.from_url(self._url, retry_config=_RETRIES)


def _flush(*paths: Path) -> None:
    """Flush files and folders, so that they survive a power cut."""
    for one in paths:
        descriptor = os.open(one, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _remove_tree(path: Path) -> None:
    if path.exists():
        shutil.rmtree(path)


@contextmanager
def _translate_errors() -> Iterator[None]:
    from obstore.exceptions import BaseError

    try:
        yield
    except (BaseError, OSError) as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise ObjectsUnavailable(f"The object store cannot be used: {lines[0]}") from error
