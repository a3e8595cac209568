"""API contract: OpenAI's document and SDK, overlay and extensions, and checks against them.

Light to import: the package's build imports `compilation/` without the application.

document.py             the compiled contract
operations.py           table of operations
validation.py           compiled JSON Schema validators
validation_messages.py  the first failure, in one sentence
request_validation.py   middleware that checks requests
response_validation.py  checks of responses and streams
request.py              the request that handlers receive
api_types.pyi           types of bodies, queries and answers, for type checkers only
body.py                 limits and parsing of bodies
body_bounds.py          bounds checked before parsing
parameters.py           query strings and form fields as typed values
unknown_fields.py       fields that the document does not define
client_disconnect.py    cancels work when its client disconnects
application/            the ASGI application
forms/                  multipart forms
unknown_operation.py    paths outside of the document: relayed or refused
compilation/            from OpenAI's document to compiled files
sdk/                    what the official SDK has beyond the document
release/                differences of two documents, and the update to another one
"""

from llm_backend.contract.document import ContractMissing, Document, load_document
from llm_backend.contract.operations import (
    Operation,
    Operations,
    as_json,
    coverage_markdown,
)

__all__ = [
    "ContractMissing",
    "Document",
    "Operation",
    "Operations",
    "as_json",
    "coverage_markdown",
    "load_document",
]
