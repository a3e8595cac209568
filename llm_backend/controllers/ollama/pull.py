"""Download of a model from the Hugging Face hub into the models folder, with its progress."""

import asyncio
from collections.abc import AsyncGenerator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from functools import cache
from typing import TYPE_CHECKING

from starlette.responses import Response

from llm_backend import exact_json
from llm_backend.contract.client_disconnect import cancel_on_disconnect
from llm_backend.contract.request import ApiRequest
from llm_backend.controllers.ollama.options import check_ollama_fields, streams
from llm_backend.controllers.ollama.request import check_enabled
from llm_backend.controllers.rendering.event_stream import event_stream
from llm_backend.controllers.rendering.json_response import JsonResponse
from llm_backend.controllers.services import Services
from llm_backend.errors import ApiError, InvalidRequest
from llm_backend.json_types import JsonObject
from llm_backend.model_files import HUB_NAME, HeaderError, read_model_file
from llm_backend.model_import.hub import HubFile, PullError, pull
from llm_backend.sse import NDJSON, encode_error

if TYPE_CHECKING:
    from llm_backend.contract import api_types as api

_FIELDS = frozenset({"model", "name", "stream"})
_HOSTS = ("hf.co/", "huggingface.co/")
_DOWNLOADS = 4
_BYTES_PER_LINE = 16 * 1024 * 1024
_SUCCESS: JsonObject = {"status": "success"}


async def pull_ollama_model(services: Services, request: ApiRequest) -> Response:
    """`POST /api/pull`: the model is served once the settings name it, with `serve_models_folder`
    immediately."""
    check_enabled(services)
    body: api.PullOllamaModelRequest = request.body
    check_ollama_fields(body, _FIELDS)
    progress = _Pull(services, body.get("model") or body.get("name") or "").progress()
    if streams(body):
        return await event_stream(
            _encode(progress), ending=b"", failure=_failure, media_type=NDJSON
        )
    return JsonResponse(await cancel_on_disconnect(request, _last(progress)))


class _Pull:
    """One download in a thread; queues its progress for the event loop."""

    def __init__(self, services: Services, name: str) -> None:
        for host in _HOSTS:
            name = name.removeprefix(host)
        match = HUB_NAME.fullmatch(name)
        if match is None:
            raise InvalidRequest(
                f"`{name[:256]}` is not a model of the Hugging Face hub: give OWNER/NAME or "
                "OWNER/NAME:QUANT.",
                param="model",
            )
        owner, repository, self._quant = match.groups()
        self._repository = f"{owner}/{repository}"
        self._folder = services.settings.models_folder / owner / repository
        self._loop = asyncio.get_running_loop()
        self._lines: asyncio.Queue[JsonObject | None] = asyncio.Queue()
        self._is_cancelled = False
        self._file: JsonObject = {}
        self._reported_bytes = 0

    async def progress(self) -> AsyncGenerator[JsonObject, None]:
        """Yields the progress, and success at the end. Raises `InvalidRequest` if the model cannot
        be downloaded. Closing this generator ends the download and keeps the bytes so far."""
        yield {"status": "pulling manifest"}
        download = self._loop.run_in_executor(_threads(), self._run)
        download.add_done_callback(self._end)
        try:
            while (line := await self._lines.get()) is not None:
                yield line
            await download
        except PullError as error:
            raise InvalidRequest(str(error), param="model") from error
        finally:
            self._is_cancelled = True
            download.cancel()  # if it has not begun
        yield _SUCCESS

    def _run(self) -> None:
        files = pull(
            self._repository,
            self._quant,
            self._folder,
            on_file=self._begin_file,
            on_bytes=self._add_bytes,
        )
        for file in files:
            try:
                read_model_file(file)
            except HeaderError as error:
                raise PullError(str(error)) from error

    def _begin_file(self, file: HubFile) -> None:
        digest = {"digest": f"sha256:{file.sha256}"} if file.sha256 else {}
        self._file = {
            "status": f"pulling {file.path}", **digest, "total": file.size_bytes, "completed": 0,
        }  # fmt: skip
        self._reported_bytes = 0
        self._report()

    def _add_bytes(self, size: int) -> None:
        if self._is_cancelled:
            raise PullError("The client has disconnected.")
        self._file = {**self._file, "completed": self._file["completed"] + size}
        completed = self._file["completed"]
        if completed - self._reported_bytes >= _BYTES_PER_LINE or completed == self._file["total"]:
            self._reported_bytes = completed
            self._report()

    def _end(self, download: asyncio.Future[None]) -> None:
        if not download.cancelled():
            download.exception()  # no warning if no client waits for it any more
        self._lines.put_nowait(None)

    def _report(self) -> None:
        self._loop.call_soon_threadsafe(self._lines.put_nowait, self._file)


@cache
def _threads() -> ThreadPoolExecutor:
    """Creates the thread pool of downloads, which may take hours; more of them wait."""
    return ThreadPoolExecutor(_DOWNLOADS, thread_name_prefix="downloads")


async def _last(progress: AsyncGenerator[JsonObject, None]) -> JsonObject:
    async with aclosing(progress):
        return [line async for line in progress][-1]


async def _encode(progress: AsyncGenerator[JsonObject, None]) -> AsyncGenerator[bytes, None]:
    async with aclosing(progress):
        async for line in progress:
            yield exact_json.dumps(line) + b"\n"


def _failure(error: ApiError) -> bytes:
    return encode_error("/api/pull", error)
