"""The contract as it is compiled, and the application over it with handlers that echo."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from starlette.responses import JSONResponse, Response
from starlette.testclient import TestClient

from llm_backend.contract import Document, Operation, load_document
from llm_backend.contract.application.connexion_app import build_app
from llm_backend.contract.body import BodyLimits
from llm_backend.contract.request import ApiRequest, Handler
from llm_backend.contract.response_validation import ResponseCheckMode
from llm_backend.contract.validation import Validators


@pytest.fixture(scope="session")
def document() -> Document:
    return load_document()


@pytest.fixture(scope="session")
def validators(document: Document) -> Validators:
    return Validators(document)


async def echo(_services: Any, request: ApiRequest) -> Response:
    """Answers what it was asked; reads a body that was not read for it."""
    rest = b"" if request.raw_body else await request.http.body()
    return JSONResponse(
        {
            "operation": request.operation.operation_id,
            "path": dict(request.path),
            "query": request.query,
            "body": request.body,
            "raw_bytes": len(request.raw_body),
            "rest_bytes": len(rest),
        }
    )


async def nobody(_headers: Any, _operation: Any) -> None:
    return None


@pytest.fixture(scope="session")
def client_for(document: Document, validators: Validators) -> Callable[..., TestClient]:
    """Makes a client of an application whose operations are all answered by one handler."""

    def client_for(handler: Handler = echo, **changes: Any) -> TestClient:
        options: dict[str, Any] = {
            "handler_of": lambda _operation: handler,
            "authenticate": nobody,
            "limits": BodyLimits(json_bytes=200_000, upload_bytes=400_000),
            "check_relayed": True,
            "response_checks": ResponseCheckMode.OFF,
        }
        app = build_app(document, validators, None, **{**options, **changes})
        return TestClient(app, raise_server_exceptions=False)

    return client_for


@pytest.fixture(scope="session")
def client(client_for: Callable[..., TestClient]) -> Iterator[TestClient]:
    with client_for() as client:
        yield client


def url_of(operation: Operation) -> str:
    """A URL of the operation, its parameters filled in."""
    return "/v1" + operation.path.replace("{", "some-").replace("}", "")
