"""Images that were uploaded are shown to models as data: URLs."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from llm_backend.backends.local.media.web import IMAGE_WORDS
from llm_backend.backends.web_files import WebFiles
from llm_backend.controllers.services.input_images import InputImages
from llm_backend.errors import InvalidRequest, ServiceUnavailable
from llm_backend.store import Blobs, Bucket, Database, FileStore, StoredFile, migrate

WEB = WebFiles(messages=IMAGE_WORDS, limit_bytes=1000, timeout_s=1)
IMAGE = b"\x89PNG and more"


@pytest.fixture
async def files(tmp_path: Path) -> AsyncIterator[FileStore]:
    async with Database.open(f"sqlite:///{tmp_path / 'state.db'}") as database:
        await migrate(database)
        bucket = Bucket((tmp_path / "files").as_uri())
        yield FileStore(database, Blobs(database, bucket))


async def uploaded(files: FileStore) -> str:
    async def pieces() -> AsyncIterator[bytes]:
        yield IMAGE

    async with files.blobs.writing(pieces()) as blob:
        file = StoredFile(
            id="file-1", created_at=1, purpose="vision", filename="a.png", media_type="image/png",
            content=(blob,),
        )  # fmt: skip
        await files.add(file)
    return file.id


def message(file_id: str) -> dict[str, Any]:
    return {"type": "message", "content": [{"type": "input_image", "file_id": file_id}]}


async def test_an_image_is_shown_in_place_of_its_file(files: FileStore):
    items = [message(await uploaded(files))]

    (shown,) = await InputImages(files, WEB, limit_bytes=100).read(items, "input")

    assert shown["content"][0]["image_url"] == "data:image/png;base64,iVBORyBhbmQgbW9yZQ=="


@pytest.mark.parametrize(("id", "limit_bytes"), [("file-2", 100), ("file-1", 5)])
async def test_a_file_that_cannot_be_shown_is_named(files: FileStore, id: str, limit_bytes: int):
    await uploaded(files)

    with pytest.raises(InvalidRequest) as refused:
        await InputImages(files, WEB, limit_bytes=limit_bytes).read([message(id)], "input")

    assert refused.value.param == "input[0].content[0].file_id"


async def test_bytes_that_cannot_be_read_now_are_no_mistake_of_the_client(
    files: FileStore, tmp_path: Path
):
    items = [message(await uploaded(files))]
    (tmp_path / "files").rename(tmp_path / "not mounted")
    (tmp_path / "files").mkdir()

    with pytest.raises(ServiceUnavailable, match="object store"):
        await InputImages(files, WEB, limit_bytes=100).read(items, "input")
