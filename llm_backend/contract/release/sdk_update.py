"""Update of `openapi/` to the installed SDK: `sdk.yaml` and its lines in `operations.yaml`."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from llm_backend.contract.compilation.compiler import extend_document
from llm_backend.contract.compilation.fingerprint import SOURCES
from llm_backend.contract.release.comparison import compare_documents
from llm_backend.contract.release.report import as_markdown
from llm_backend.contract.release.update import edit_operations
from llm_backend.contract.sdk.contract import dump_sdk, sdk_facts


@dataclass(frozen=True, slots=True, kw_only=True)
class SdkUpdate:
    """A prepared update: its differences as Markdown, and the text of each file that it writes."""

    report: str
    files: Mapping[str, str] = field(repr=False)


def prepare_sdk_update(openapi_dir: Path) -> SdkUpdate:
    """Prepares the update of `openapi_dir` to the installed SDK, and writes nothing.

    Raises `ImportError` if the SDK is not installed.
    """
    texts = {name: (openapi_dir / name).read_text(encoding="utf-8") for name in SOURCES}
    contract, sdk, extensions = (
        yaml.load(texts[name], Loader=yaml.CSafeLoader)
        for name in ("openapi.yaml", "sdk.yaml", "extensions.yaml")
    )
    facts = sdk_facts(extend_document(contract, extensions, "extensions.yaml"))
    old, new = (extend_document(contract, each, "sdk.yaml") for each in (sdk, facts))
    changes = compare_documents(old, new)
    before, after = (f"openai {each['info']['version']}" for each in (sdk, facts))
    return SdkUpdate(
        report=as_markdown(before, after, changes),
        files={
            "sdk.yaml": dump_sdk(facts),
            "operations.yaml": edit_operations(texts["operations.yaml"], new, changes),
        },
    )
