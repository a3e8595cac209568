"""Status event stream: the state of all models, sent immediately and then on every change."""

from starlette.responses import Response

from llm_backend.contract.request import ApiRequest
from llm_backend.controllers.rendering.event_stream import event_stream
from llm_backend.controllers.services import Services


async def get_status(services: Services, request: ApiRequest) -> Response:
    """`GET /status`: an endless event stream."""
    admission, caller = services.access.admission, request.caller
    watching = services.status.watch(lambda model: admission.may_use(caller, model))
    return await event_stream(watching, ending=b"")
