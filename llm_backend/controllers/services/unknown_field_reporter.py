"""Request fields that the document does not define: relayed and reported, or refused."""

from functools import lru_cache
from typing import Any

from llm_backend.contract.unknown_fields import KnownFields, unknown_fields
from llm_backend.contract.unknown_operation import UNKNOWN
from llm_backend.contract.validation import Validators
from llm_backend.errors import InvalidRequest
from llm_backend.metrics import Metrics

HEADER = b"x-llm-backend-unknown-fields"


class UnknownFieldReporter:
    """Finds unknown fields; `strict` refuses them."""

    def __init__(self, validators: Validators, metrics: Metrics, *, strict: bool) -> None:
        self._validators = validators
        self._metrics = metrics
        self._strict = strict
        self._known = lru_cache(maxsize=None)(self._known_fields)

    def report(self, operation_id: str, body: Any) -> list[tuple[bytes, bytes]]:  # Any: parsed JSON
        """Returns the response header that lists unknown fields, if there are any.

        Raises `InvalidRequest` instead if `strict` is set.
        """
        known_fields = self._known(operation_id) if isinstance(body, dict) else None
        found = unknown_fields(body, known_fields) if known_fields is not None else []
        if not found:
            return []
        if self._strict:
            raise InvalidRequest(
                f"Unknown parameter: '{found[0]}'.", param=found[0], code="unknown_parameter"
            )
        self._metrics.unknown_fields.labels(operation_id).inc(len(found))
        return [(HEADER, ", ".join(map(_printable, found)).encode())]

    def _known_fields(self, operation_id: str) -> KnownFields | None:
        if operation_id == UNKNOWN.operation_id:
            return None  # the operation itself is not in the document
        check = self._validators.body(operation_id)
        return None if check is None else KnownFields([check.schema], check.component)


def _printable(name: str) -> str:
    return "".join(one if 0x20 < ord(one) < 0x7F and one != "," else "?" for one in name)
