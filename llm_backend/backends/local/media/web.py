"""Remote pictures, fetched from allowed hosts."""

from dataclasses import replace

from llm_backend.backends.local.media.values import Picture
from llm_backend.backends.web_files import FetchMessages, WebFiles, is_web_url
from llm_backend.offload import base64_text

PICTURE_WORDS = FetchMessages(
    noun="picture",
    instead="send a data: URL, upload the picture and send its `file_id` to /v1/responses",
    setting="image_hosts",
    url_code="invalid_image_url",
    size_code="image_file_too_large",
)


class WebPictures:
    """Fetches pictures with `files` and converts them to data: URLs."""

    def __init__(self, files: WebFiles) -> None:
        self._files = files

    async def fetch(self, picture: Picture) -> Picture:
        """Returns the picture with a data: URL; fetches it if needed. Raises `InvalidRequest`."""
        if not is_web_url(picture.url):
            return picture
        file = await self._files.fetch(picture.url, picture.param)
        return replace(picture, url=f"data:;base64,{await base64_text(file.content)}")
