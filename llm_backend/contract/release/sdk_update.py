"""Update of `openapi/` to the installed SDK: `sdk.yaml`, what the overlay says of it, and its lines
in `operations.yaml`."""

from pathlib import Path

import yaml

from llm_backend.contract.compilation.compiler import extend_document
from llm_backend.contract.compilation.fingerprint import SOURCES
from llm_backend.contract.release.comparison import compare_documents
from llm_backend.contract.release.overlay_repair import stale_actions
from llm_backend.contract.release.update import (
    ContractUpdate,
    edit_operations,
    edit_overlay,
    local_operations,
)
from llm_backend.contract.sdk.sdk_facts import dump_sdk, sdk_facts


def prepare_sdk_update(openapi_dir: Path) -> ContractUpdate:
    """Prepares the update of `openapi_dir` to the installed SDK, and writes nothing.

    Raises `ImportError` if the SDK is not installed.
    """
    texts = {name: (openapi_dir / name).read_text(encoding="utf-8") for name in SOURCES}
    contract, sdk, extensions, overlay = (
        yaml.load(texts[name], Loader=yaml.CSafeLoader)
        for name in ("openapi.yaml", "sdk.yaml", "extensions.yaml", "overlay.yaml")
    )
    facts = sdk_facts(extend_document(contract, extensions, "extensions.yaml"))
    old, new = (extend_document(contract, each, "sdk.yaml") for each in (sdk, facts))
    changes = compare_documents(old, new)
    stale = stale_actions(old, new, overlay, changes)
    return ContractUpdate(
        old=sdk["info"],
        new=facts["info"],
        changes=changes,
        stale=stale,
        local=local_operations(texts["operations.yaml"]),
        files={
            "sdk.yaml": dump_sdk(facts),
            "overlay.yaml": edit_overlay(texts["overlay.yaml"], new, changes, stale),
            "operations.yaml": edit_operations(texts["operations.yaml"], new, changes),
        },
    )
