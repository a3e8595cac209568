"""API contract: OpenAI's OpenAPI document with overlay and extensions, and checks against it.

Light to import: the application is in `connexion_app`, validators in `validation`, the build of
the contract in `builder` and `compiler`; the package's build needs the last without the others.
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
