"""What the API promises: OpenAI's document, mended and extended, and everything checked by it.

Light to import: the application is in `connexion_app`, validators in `validation`, what builds
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
