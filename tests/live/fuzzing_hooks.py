"""Hooks of schemathesis for `make fuzz`: they count the cases, keep the failures while it runs, and
drop from three valid bodies in four what the server refuses."""

import atexit
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import hypothesis
import schemathesis

import tests.live.media_hooks  # noqa: F401  # registers those of the suite, too
from tests.case_journal import CaseJournal, keep_find
from tests.live.refused_fields import drop_refused_fields

server = httpx.Client(
    base_url=os.environ["FUZZ_URL"],
    headers={"Authorization": f"Bearer {os.environ['FUZZ_KEY']}"},
    timeout=60,
)
journal = CaseJournal(Path(os.environ["FUZZ_JOURNAL"]))
atexit.register(journal.flush)
# From each accepted case Hypothesis would go on with its shrinker: most of the client's time.
hypothesis.target = lambda observation, **_label: observation


@schemathesis.hook
def before_call(_context: object, case: Any, **_more: object) -> None:
    """Has the server name what it refuses."""
    meta, body = case.meta, case.body
    if meta is None or not meta.generation.mode.is_positive or meta.phase.name.value == "coverage":
        return
    is_object = isinstance(body, dict) and case.media_type == "application/json"
    if not is_object or len(json.dumps(body)) % 4 == 0:
        return

    def refusal(body: dict[str, Any]) -> Mapping[str, Any] | None:
        answer = server.request(
            case.method, case.formatted_path, params=case.query, content=json.dumps(body),
            headers={"Content-Type": "application/json"},
        )  # fmt: skip
        error = None if answer.status_code < 400 else answer.json()["error"]
        # Ollama's is a sentence, and Anthropic's has no `param`: they name the field in the text.
        named = error if isinstance(error, dict) else {"message": error or ""}
        if error is None or "param" in named:
            return error
        names = re.findall(r"`(\w+)", str(named["message"]))
        return {**named, "param": next((one for one in names if one in body), None)}

    drop_refused_fields(body, refusal)


@schemathesis.hook
def after_call(_context: object, case: Any, _response: object) -> None:
    """Counts a case of an operation."""
    meta = case.meta
    kind = "other" if meta is None else f"{meta.phase.name.value} {meta.generation.mode.value}"
    journal.count(kind, case.operation.label)


@schemathesis.hook
def filter_failure(_context: object, failure: Any, case: Any, response: Any) -> bool:
    """Keeps the first failure of its kind; schemathesis prints it at its end, too."""
    name = f"{case.operation.label} {failure.title}"
    text = f"{failure.message}\n{case.as_curl_command()}\n{response.status_code}"
    keep_find(Path(os.environ["FUZZ_FINDS"]), name, text, replace=False)
    return True
