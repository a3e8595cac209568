"""Compiles the contract into the wheel (and into the source tree of an editable install)."""

import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class CompileContract(BuildHookInterface):
    """Writes `llm_backend/contract/compiled/` from `openapi/` before files are collected."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        root = Path(self.root)
        sys.path.insert(0, self.root)
        try:
            from llm_backend.contract.compiler import compile_contract
        finally:
            sys.path.remove(self.root)
        compile_contract(root / "openapi", root / "llm_backend" / "contract" / "compiled")
