"""What schemathesis does beside the document's schemas: most requests name a model that is there,
or they would end where it is looked up."""

from typing import Any

import schemathesis

MODEL = "builtin"


@schemathesis.hook
def before_call(_context: object, case: Any, **_more: object) -> None:
    """Names the model in three requests of four."""
    body = case.body
    if isinstance(body, dict) and isinstance(name := body.get("model"), str) and len(name) % 4:
        body["model"] = MODEL
