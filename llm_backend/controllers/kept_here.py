"""Things that are kept here or, if no such id is, maybe by the upstream."""

import functools
from collections.abc import Callable

from starlette.responses import Response

from llm_backend.contract.request import Handler, Request
from llm_backend.controllers.relay import relay
from llm_backend.controllers.services import Services
from llm_backend.controllers.store_errors import store_errors_translated
from llm_backend.store import Missing

__all__ = ["kept_here"]


def kept_here(thing: str, parameter: str) -> Callable[[Handler], Handler]:
    """A handler for one `thing`, whose id is the path's `parameter`: `Missing` from it is a 404, or
    the upstream's to answer if there is one and the thing itself is what is missing."""

    def decorate(handler: Handler) -> Handler:
        @functools.wraps(handler)
        async def here_or_upstream(services: Services, request: Request) -> Response:
            with store_errors_translated(thing):
                try:
                    return await handler(services, request)
                except Missing as missing:
                    if services.upstream is None or missing.id != request.path[parameter]:
                        raise
                    return await relay(services, request)

        return here_or_upstream

    return decorate
