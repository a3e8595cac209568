"""Remote images, fetched from allowed hosts."""

from dataclasses import replace

from llm_backend.backends.local.media.values import Image
from llm_backend.backends.web_files import FetchMessages, WebFiles, is_web_url
from llm_backend.offload import base64_text

IMAGE_WORDS = FetchMessages(
    noun="image",
    instead="send a data: URL, upload the image and send its `file_id` to /v1/responses",
    setting="image_hosts",
    url_code="invalid_image_url",
    size_code="image_file_too_large",
)


class WebImages:
    """Fetches images with `files` and converts them to data: URLs."""

    def __init__(self, files: WebFiles) -> None:
        self._files = files

    async def fetch(self, image: Image) -> Image:
        """Returns the image with a data: URL; fetches it if needed. Raises `InvalidRequest`."""
        if not is_web_url(image.url):
            return image
        file = await self._files.fetch(image.url, image.param)
        return replace(image, url=f"data:;base64,{await base64_text(file.content)}")
