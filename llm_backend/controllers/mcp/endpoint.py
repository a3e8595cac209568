"""Messages of the Model Context Protocol over streamable HTTP, without sessions."""

from contextlib import suppress

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from llm_backend.contract.body_bounds import check_size
from llm_backend.contract.client_disconnect import cancel_on_disconnect
from llm_backend.contract.request import ApiRequest
from llm_backend.controllers.internal_requests import body_channel
from llm_backend.controllers.services import Services
from llm_backend.controllers.services.mcp_endpoint import McpEndpoint
from llm_backend.errors import ClientGone, InvalidRequest, TooLarge, Unsupported
from llm_backend.json_types import JsonMapping
from llm_backend.offload import is_request_large, offload


async def send_mcp_message(services: Services, request: ApiRequest) -> Response:
    """`POST /mcp`"""
    settings = services.settings
    if not settings.mcp_api:
        raise Unsupported("The MCP server is switched off here (`mcp_api`).")
    nodes, text_bytes = settings.mcp_nodes_limit, settings.json_text_limit_bytes
    try:  # the library parses the message on the event loop
        await offload(check_size, request.raw_body, nodes_limit=nodes, text_limit_bytes=text_bytes)
    except TooLarge:
        raise TooLarge(
            f"A message for the MCP server may have at most {nodes} JSON values and names "
            f"(`mcp_nodes_limit`), and {text_bytes} bytes (`json_text_limit_bytes`)."
        ) from None
    if is_request_large() and not _is_message(request.body):
        raise InvalidRequest("The body is not a message of JSON-RPC 2.0.")
    return _McpAnswer(services.mcp, request)


def _is_message(body: JsonMapping) -> bool:
    """False for a body that the library would refuse. It is checked here, because the library's
    message would contain the body's values."""
    if body.get("jsonrpc") != "2.0" or not isinstance(body.get("id", ""), str | int | None):
        return False
    if isinstance(body.get("method"), str):
        return isinstance(body.get("params", {}), dict | None)
    error = body.get("error", {})
    if isinstance(body.get("result"), dict):
        return True
    return isinstance(error, dict) and {"code", "message"} <= error.keys()


class _McpAnswer(Response):
    """Response that the library writes."""

    def __init__(self, endpoint: McpEndpoint, request: ApiRequest) -> None:
        super().__init__()
        self._endpoint = endpoint
        self._request = request

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = body_channel(self._request.raw_body)
        with suppress(ClientGone):
            await cancel_on_disconnect(self._request, self._endpoint.answer(scope, body, send))
