"""Image servers: images drawn by an upstream that speaks `/sdapi/v1`, with previews.

A server works at one request at a time, and reports to every client the progress of the current
one. So previews are read, and a request that is given up is interrupted, only at a server that gets
one request at a time from here (`concurrency: 1`).
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from llm_backend.backends.images import sdapi
from llm_backend.backends.images.image_request import (
    GeneratedImage,
    ImageOptions,
    ImageProgress,
    ImageRequest,
    Preview,
)
from llm_backend.backends.registry import ImageServerModel
from llm_backend.backends.upstream.upstream_answer import UpstreamAnswer
from llm_backend.backends.upstream.upstream_errors import read_error
from llm_backend.backends.upstream.upstream_request import UpstreamRequest
from llm_backend.background_tasks import BackgroundTasks
from llm_backend.errors import (
    ApiError,
    InvalidRequest,
    ModelNotFound,
    UpstreamError,
    UpstreamFailed,
)
from llm_backend.json_types import JsonMapping

if TYPE_CHECKING:  # its HTTP client is imported only with upstreams
    from llm_backend.backends.upstream.pool import UpstreamPool

log = logging.getLogger(__name__)

_HEADERS = ((b"content-type", b"application/json"), (b"accept", b"application/json"))
_POLL_S = 0.5
_OPTIONS_TIMEOUT_S = 5.0
_PROGRESS_TIMEOUT_S = 2.0
_INTERRUPT_TIMEOUT_S = 5.0  # an interruption is answered quickly, or the server is stuck
_FRAMING_BYTES = 1024 * 1024  # bytes of an answer besides its images

OnAbandoned = Callable[[], None]
"""Called if a request is given up after the image server has got it."""


class ImageServers:
    """Image servers behind one pool. `options` are those of models by name, `default` of all
    others; an image's file has at most `image_bytes`. `is_alone`: there are no other upstreams, so
    that requests without a model are for an image server."""

    def __init__(
        self,
        pool: "UpstreamPool",
        options: Mapping[str, ImageOptions],
        default: ImageOptions,
        *,
        image_bytes: int,
        is_alone: bool,
        poll_s: float = _POLL_S,
    ) -> None:
        self._pool = pool
        self._options = options
        self._default = default
        self._image_bytes = image_bytes
        self._is_alone = is_alone
        self._poll_s = poll_s
        self._endings = BackgroundTasks()
        self._running: set[_ServerRequest] = set()

    async def wait_idle(self) -> None:
        """Waits until the image servers have been asked to end all cancelled requests."""
        await self._endings.wait_idle()

    @property
    def is_available(self) -> bool:
        """True if an image server is not ejected, or its ejection time is over."""
        return self._pool.is_available

    def is_default(self, operation: Sequence[str]) -> bool:
        """Returns True if a request without a model is for an image server."""
        return self._is_alone or self._pool.routing.is_bound(operation)

    async def progress(self) -> Sequence[ImageProgress]:
        """Returns all requests for images of this process that are not answered yet."""
        return await asyncio.gather(*(one.progress() for one in self._running))

    async def resolve(self, model: ImageServerModel, operation: Sequence[str]) -> ImageServerModel:
        """Returns the model under its checkpoint's id, by which limits, prices and options are
        found. A name may be a checkpoint's title; without one it is the checkpoint that the image
        server has loaded.

        Raises `ModelNotFound` for a model that no image server lists, `InvalidRequest` if none is
        named and the server does not report which one is loaded, and `UpstreamError`.
        """
        listed = await self._pool.models()
        if not listed:
            raise UpstreamFailed("No image server lists its models: it is down, or has no API.")
        name, upstream = model.model, model.upstream
        if name is None:
            upstream = self._pool.routing.for_operation(operation)[0]
            name = await self._find_loaded(upstream)
        found = next((one["id"] for one in listed if name and _is_named(one, name)), None)
        if found is not None:
            return ImageServerModel(model=found, upstream=upstream)
        if model.model is not None:
            raise ModelNotFound(model.model)
        raise InvalidRequest(
            "The image server does not report which of its models is loaded: name one.",
            param="model",
            code="missing_required_parameter",
        )

    async def _find_loaded(self, upstream: str) -> str | None:
        """Returns the title of the checkpoint that an image server has loaded, if it reports
        one."""
        try:
            async with asyncio.timeout(_OPTIONS_TIMEOUT_S):
                answer = await self._pool.send_without_permit(
                    upstream, method="GET", path=sdapi.OPTIONS
                )
                read = await answer.read(_FRAMING_BYTES)
        except TimeoutError as error:
            raise UpstreamFailed("The image server does not report its options.") from error
        return sdapi.parse_loaded_checkpoint(read) if answer.status == 200 else None

    async def draw(
        self,
        drawing: ImageRequest,
        model: ImageServerModel,
        *,
        operation: Sequence[str],
        fairness_key: str,
        on_abandoned: OnAbandoned,
    ) -> AsyncGenerator[Preview | GeneratedImage, None]:
        """Yields the images as they are finished, each after its previews. Closing the generator
        interrupts the image server. The model is one that `resolve` returned.

        Raises `ModelNotFound` for a model that is no longer listed, the server's refusal, and the
        errors of `UpstreamPool.exchange`.
        """
        request = _ServerRequest(
            pool=self._pool,
            upstream=model.upstream,
            model=model.model,
            title=await self._title(model.model or ""),
            options=self._options.get(model.model or "", self._default),
            operation=operation,
            fairness_key=fairness_key,
            on_abandoned=on_abandoned,
            image_bytes=self._image_bytes,
            poll_s=self._poll_s,
            endings=self._endings,
        )
        remaining = drawing.count
        self._running.add(request)
        try:
            while remaining:
                # Some servers draw one image for any `count`; previews show one image.
                part = replace(drawing, count=1 if drawing.previews else remaining)
                async with aclosing(request.draw(part)) as events:
                    async for event in events:
                        remaining -= isinstance(event, GeneratedImage)
                        yield event
        finally:
            self._running.remove(request)

    async def _title(self, model: str) -> str:
        """Returns the name by which the image server selects a model."""
        found = (one["title"] for one in await self._pool.models() if one["id"] == model)
        title: str | None = next(found, None)
        if title is None:
            raise ModelNotFound(model)
        return title


@dataclass(kw_only=True, eq=False)
class _ServerRequest:
    """One request to the image servers, which asks for images one or more times."""

    pool: "UpstreamPool"
    upstream: str | None
    model: str | None
    title: str
    options: ImageOptions
    operation: Sequence[str]
    fairness_key: str
    on_abandoned: OnAbandoned
    image_bytes: int
    poll_s: float
    endings: BackgroundTasks
    _current_upstream: str | None = None  # name of the upstream that has the request

    async def draw(self, drawing: ImageRequest) -> AsyncGenerator[Preview | GeneratedImage, None]:
        """Yields the previews and then the images of one request; at least one image."""
        self._current_upstream = None
        drawing_task = asyncio.create_task(self._fetch_images(drawing))
        try:
            async with aclosing(self._previews(drawing_task, drawing.previews)) as previews:
                async for preview in previews:
                    yield preview
            await asyncio.wait([drawing_task])  # a cancelled wait does not cancel the task
            for image in drawing_task.result()[: drawing.count]:
                yield GeneratedImage(data=image)
        finally:
            if not drawing_task.done():  # in a task of its own: this one may be cancelled
                self.endings.start(self._interrupt_and_cancel(drawing_task))

    async def _fetch_images(self, drawing: ImageRequest) -> list[bytes]:
        limit_bytes = drawing.count * self.image_bytes * 4 // 3 + _FRAMING_BYTES
        body = await asyncio.to_thread(sdapi.request_body, drawing, self.options, self.title)
        answer = await self.pool.exchange(
            UpstreamRequest(
                method="POST",
                path=sdapi.TEXT_TO_IMAGE if drawing.source is None else sdapi.IMAGE_TO_IMAGE,
                query=b"",
                headers=_HEADERS,
                body=body,
                operation=self.operation,
                model=self.model,
                upstream=self.upstream,
                streams=False,
                fairness_key=self.fairness_key,
                on_abandoned=self.on_abandoned,
                on_attempt=self._record_attempt,
            )
        )
        if answer.status != 200:
            raise await read_error(answer)
        read = await answer.read(limit_bytes)
        self._current_upstream = None  # it may draw for another request from now on
        try:
            if len(read) > limit_bytes:
                raise UpstreamFailed("The image server's answer is larger than its images may be.")
            return await asyncio.to_thread(sdapi.parse_images, read)
        except UpstreamFailed as error:
            answer.report_invalid(error)
            raise

    async def progress(self) -> ImageProgress:
        """Returns the progress as the image server reports it."""
        share = None
        if self._current_upstream is not None and self.pool.is_exclusive(self._current_upstream):
            with suppress(UpstreamError, TimeoutError):  # the share stays unknown
                async with asyncio.timeout(_PROGRESS_TIMEOUT_S):
                    drawn, _ = await self._fetch_progress(self._current_upstream, has_image=False)
                    share = min(max(drawn, 0.0), 1.0)
        return ImageProgress(model=self.model or "", share=share)

    def _record_attempt(self, upstream: str | None) -> None:
        self._current_upstream = upstream

    async def _previews(
        self, drawing_task: "asyncio.Task[list[bytes]]", count: int
    ) -> AsyncGenerator[Preview, None]:
        """Yields up to `count` previews, evenly spread, until the request is answered."""
        index, last = 0, b""
        while index < count:
            await asyncio.wait([drawing_task], timeout=self.poll_s)
            if drawing_task.done():
                return
            if self._current_upstream is None:
                continue
            if not self.pool.is_exclusive(self._current_upstream):
                return  # the current image may be another request's
            progress = await self._poll_progress(self._current_upstream, drawing_task)
            if progress is None:
                return
            share, data = progress
            if (
                data
                and data != last
                and share >= (index + 1) / (count + 1)
                and not drawing_task.done()
            ):
                yield Preview(data=data, index=index)
                index, last = index + 1, data

    async def _poll_progress(
        self, upstream: str, drawing_task: "asyncio.Task[list[bytes]]"
    ) -> tuple[float, bytes] | None:
        """Returns the share of the work that is done, and the current image, empty if it is not
        shown. Returns None if the server reports no progress, or if the images arrive first."""
        fetching = asyncio.create_task(self._fetch_progress(upstream, has_image=True))
        try:
            await asyncio.wait([fetching, drawing_task], return_when=asyncio.FIRST_COMPLETED)
            return await fetching if fetching.done() else None
        except UpstreamError as error:
            log.info("no_previews", extra={"upstream": upstream, "reason": error.message})
            return None
        finally:
            fetching.cancel()
            await asyncio.gather(fetching, return_exceptions=True)

    async def _fetch_progress(self, upstream: str, *, has_image: bool) -> tuple[float, bytes]:
        """Returns the share of the work that is done, and the current image. Raises
        `UpstreamError` if the server reports no progress."""
        query = b"skip_current_image=false" if has_image else b"skip_current_image=true"
        answer = await self.pool.send_without_permit(
            upstream, method="GET", path=sdapi.PROGRESS, query=query
        )
        read = await answer.read(self.image_bytes * 4 // 3 + _FRAMING_BYTES)
        if answer.status != 200:
            raise UpstreamFailed(f"The image server reports no progress ({answer.status}).")
        return await asyncio.to_thread(sdapi.parse_progress, read)

    async def _interrupt_and_cancel(self, drawing_task: "asyncio.Task[list[bytes]]") -> None:
        """Ends a request whose client has left. The server is interrupted first, while this request
        still has its permit; later the interruption would end another request's image."""
        await self._interrupt()
        drawing_task.cancel()
        await asyncio.gather(drawing_task, return_exceptions=True)

    async def _interrupt(self) -> None:
        """Interrupts the current image, if it is certainly this request's."""
        if self._current_upstream is None or not self.pool.is_exclusive(self._current_upstream):
            return
        with suppress(ApiError, TimeoutError):  # it then draws to the end
            async with asyncio.timeout(_INTERRUPT_TIMEOUT_S):
                answer: UpstreamAnswer = await self.pool.send_without_permit(
                    self._current_upstream, method="POST", path=sdapi.INTERRUPT
                )
                await answer.read(_FRAMING_BYTES)


def _is_named(listed: JsonMapping, name: str) -> bool:
    """True if a name is a checkpoint's id or title, whose hash in brackets may be left out."""
    title: str = listed["title"]
    return name in (listed["id"], title, title.partition(" [")[0])
