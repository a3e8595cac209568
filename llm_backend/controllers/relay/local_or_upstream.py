"""Operations on stored objects: local, or relayed to an upstream if the id is unknown here."""

import functools
from collections.abc import Callable

from starlette.responses import Response

from llm_backend.contract.request import ApiRequest, Handler
from llm_backend.controllers.relay.relay import relay
from llm_backend.controllers.rendering.store_errors import translate_store_errors
from llm_backend.controllers.services import Services
from llm_backend.errors import NotFound
from llm_backend.store import Missing


def local_or_upstream(
    kind: str, parameter: str, *, part: str | None = None, relay_by: Handler = relay
) -> Callable[[Handler], Handler]:
    """Decorates a handler for one object of a `kind`, whose id is the path's `parameter`, or for a
    `part` of it. If the object is missing and an upstream is configured, `relay_by` relays the
    request; otherwise the answer is 404, as it is for a missing part of a stored object."""

    def decorate(handler: Handler) -> Handler:
        @functools.wraps(handler)
        async def answer_or_relay(services: Services, request: ApiRequest) -> Response:
            with translate_store_errors(kind):
                try:
                    return await handler(services, request)
                except Missing as missing:
                    id = request.path[parameter]
                    if missing.id != id and part is not None:
                        message = f"The {kind} `{id}` has no {part} with the id `{missing.id}`."
                        raise NotFound(message) from missing
                    if services.upstreams is None or missing.id != id:
                        raise
                    return await relay_by(services, request)

        return answer_or_relay

    return decorate
