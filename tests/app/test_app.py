"""The composition root, where no server is needed to see what it does."""

import asyncio
import subprocess
import sys

import pytest

from llm_backend.app import create_app
from llm_backend.app.database_startup import migrate_later
from llm_backend.settings import SettingsError
from llm_backend.store import UnknownSchema


class AheadOfUs:
    """A database of a newer program."""

    async def read(self, _work: object) -> str:
        return "9999"

    async def alter(self, _work: object) -> None:
        raise UnknownSchema("The database is at revision 9999.")


async def test_migrate_later_logs_a_failed_migration_as_critical(caplog):
    async with asyncio.timeout(20):
        await migrate_later(AheadOfUs())

    (record,) = caplog.records
    assert (record.levelname, record.getMessage()) == ("CRITICAL", "database_not_migrated")
    assert "9999" in record.reason


def test_create_app_refuses_several_processes(monkeypatch):
    monkeypatch.setenv("LLM_BACKEND_PROCESSES", "2")

    with pytest.raises(SettingsError, match="`processes` is for `llm-backend serve`"):
        create_app()


def test_start_does_not_import_rarely_used_modules():
    code = "import sys, llm_backend.cli, llm_backend.server; print(*sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )

    heavy = {"mcp", "llguidance", "aiohttp", "numpy", "PIL", "obstore", "qdrant_edge", "llama_cpp",
             "av", "sherpa_onnx", "_pywhispercpp", "stable_diffusion_cpp",
             "webrtcvad"}  # fmt: skip
    of_libraries = {"argparse", "asgiref.sync", "click", "configparser", "html", "http.server",
                    "pickle", "urllib.request", "wsgiref.simple_server"}  # fmt: skip
    drivers = {"sqlite3", "asyncpg"}  # that of its database is imported when it is known
    assert not (heavy | of_libraries | drivers) & set(result.stdout.split())
