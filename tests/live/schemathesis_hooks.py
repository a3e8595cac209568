"""Hooks of schemathesis beyond the document's schemas: most requests name a model that is served,
and the models of its own project stay allowed. `make fuzz` has them count the cases and keep the
failures while it runs."""

import atexit
import os
from pathlib import Path
from typing import Any

import hypothesis
import schemathesis

from tests.case_journal import CaseJournal, keep_find

MODEL = "builtin"
OWN_PROJECT = "proj_default"
FORBIDS = "update-project-model-permissions"


@schemathesis.hook
def before_call(_context: object, case: Any, **_more: object) -> None:
    """Names the model in three requests of four, and forbids models in other projects only."""
    body = case.body
    if isinstance(body, dict) and isinstance(name := body.get("model"), str) and len(name) % 4:
        body["model"] = MODEL
    is_forbidding = case.operation.definition.raw.get("operationId") == FORBIDS
    if is_forbidding and case.path_parameters.get("project_id") == OWN_PROJECT:
        case.path_parameters["project_id"] = "proj_other"


if "FUZZ_JOURNAL" in os.environ:
    journal = CaseJournal(Path(os.environ["FUZZ_JOURNAL"]))
    finds = Path(os.environ["FUZZ_FINDS"])
    atexit.register(journal.flush)
    # From each accepted case Hypothesis would go on with its shrinker: most of the client's time.
    hypothesis.target = lambda observation, **_label: observation

    @schemathesis.hook
    def after_call(_context: object, case: Any, _response: object) -> None:
        """Counts a case of an operation."""
        meta = case.meta
        kind = "other" if meta is None else f"{meta.phase.name.value} {meta.generation.mode.value}"
        journal.count(kind, case.operation.label)

    @schemathesis.hook
    def filter_failure(_context: object, failure: Any, case: Any, response: Any) -> bool:
        """Keeps the first failure of its kind; schemathesis prints it at its end, too."""
        text = (
            f"{failure.title}\n{failure.message}\n{case.as_curl_command()}\n{response.status_code}"
        )
        keep_find(finds, f"{case.operation.label} {failure.title}", text, replace=False)
        return True
