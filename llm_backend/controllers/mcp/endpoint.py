"""Messages of the Model Context Protocol over streamable HTTP, without sessions."""

from contextlib import suppress

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from llm_backend.contract.client_disconnect import run_while_connected
from llm_backend.contract.request import ApiRequest
from llm_backend.controllers.internal_requests import body_channel
from llm_backend.controllers.services import Services
from llm_backend.controllers.services.mcp_endpoint import McpEndpoint
from llm_backend.errors import ClientGone, Unsupported


async def send_mcp_message(services: Services, request: ApiRequest) -> Response:
    """`POST /mcp`"""
    if not services.settings.mcp_api:
        raise Unsupported("The MCP server is switched off here (`mcp_api`).")
    return _McpAnswer(services.mcp, request)


class _McpAnswer(Response):
    """Response that the library writes."""

    def __init__(self, endpoint: McpEndpoint, request: ApiRequest) -> None:
        super().__init__()
        self._endpoint = endpoint
        self._request = request

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = body_channel(self._request.raw_body)
        with suppress(ClientGone):
            await run_while_connected(self._request, self._endpoint.answer(scope, body, send))
