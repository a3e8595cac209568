"""One module knows what only Linux has; without it the package is imported and goes on."""

import ast
import os
import re
import resource
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from llm_backend import operating_system
from llm_backend.engine.process import exit_status
from llm_backend.model_files import available_memory_bytes, machine_memory_bytes, memory

PACKAGE = Path(__file__).parents[1] / "llm_backend"
SEAM = PACKAGE / "operating_system.py"
LINUX_FILE = re.compile(r"^/(proc|sys)(/|$)")
LINUX_NAME = re.compile(
    r"^(os\.(sched_\w+|memfd_create|pidfd_\w+|eventfd\w*|splice|copy_file_range|posix_fadvise)"
    r"|sys\.platform|resource\.\w+|socket\.(SO_PEERCRED|AF_NETLINK)|ctypes\.CDLL)$"
)
IMPORT_EVERYTHING = """
import pkgutil, importlib, os, sys, mmap, socket, resource
import llm_backend

SKIPPED = (".__main__", ".migrations.env", ".libnucleus", ".libprefill")

def import_all():
    for module in pkgutil.walk_packages(llm_backend.__path__, "llm_backend."):
        if not module.name.endswith(SKIPPED):
            importlib.import_module(module.name)

import_all()  # libraries first: they know their own systems
for name in [name for name in sys.modules if name.startswith("llm_backend")]:
    del sys.modules[name]
sys.platform = "darwin"
for module, names in (
    (os, "sched_getaffinity memfd_create pidfd_open eventfd splice copy_file_range posix_fadvise"),
    (mmap, "MADV_HUGEPAGE MADV_NOHUGEPAGE MADV_POPULATE_WRITE"),
    (socket, "SO_PEERCRED AF_NETLINK"),
):
    for name in names.split():
        if hasattr(module, name):
            delattr(module, name)
import llm_backend
import_all()
from llm_backend.engine.llama.cpu_buffers import ADVISE, cpu_buffer_type
print(ADVISE, cpu_buffer_type(), llm_backend.operating_system.usable_cores() > 0)
"""


def linux_names(path: Path) -> set[str]:
    """Files and calls of Linux that a module names."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Constant) and LINUX_FILE.match(str(node.value)):
            found.add(str(node.value))
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            name = f"{node.value.id}.{node.attr}"
            found |= {name} if LINUX_NAME.match(name) else set()
    return found


def test_linux_is_named_in_the_seam_alone():
    elsewhere = {path.name: linux_names(path) for path in PACKAGE.rglob("*.py") if path != SEAM}

    assert {"/proc", "os.sched_getaffinity", "ctypes.CDLL"} <= linux_names(SEAM)
    assert {name: found for name, found in elsewhere.items() if found} == {
        "kernel_library.py": {"ctypes.CDLL"},  # of the compiled prefill kernels, for x86
        "native_nucleus.py": {"ctypes.CDLL"},  # a type
    }


def test_package_is_imported_without_what_only_linux_has():
    done = subprocess.run(
        [sys.executable, "-c", IMPORT_EVERYTHING], capture_output=True, text=True, check=False
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    assert done.stdout == "None None True\n"


@pytest.fixture
def _elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    """Another system: without /proc and /sys, and a C library without functions of Linux."""
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.delattr("os.sched_getaffinity")
    monkeypatch.setattr(operating_system, "c_library", object)
    for name in ("_PROC", "_GROUPS"):
        monkeypatch.setattr(memory, name, tmp_path)
    monkeypatch.setattr(exit_status, "PROC", tmp_path)


@pytest.mark.usefixtures("_elsewhere")
def test_other_systems_get_substitutes(monkeypatch):
    limits: list[int] = []
    monkeypatch.setattr(resource, "setrlimit", lambda kind, _limits: limits.append(kind))
    operating_system.die_with_parent()
    operating_system.limit_resources(1, 1)

    assert operating_system.c_function("malloc_trim") is None
    assert operating_system.usable_cores() == os.cpu_count()
    assert operating_system.read_kernel_file(Path("/proc/none")) == ""
    assert (available_memory_bytes(), exit_status.oom_kills()) == (0, 0)
    assert machine_memory_bytes() > 0
    assert limits == [resource.RLIMIT_CPU, resource.RLIMIT_CORE]


@pytest.mark.usefixtures("_elsewhere")
def test_name_of_a_lock_excludes_nothing_on_other_systems():
    with socket.socket(socket.AF_UNIX) as one, socket.socket(socket.AF_UNIX) as other:
        assert operating_system.bind_name(one, "llm-backend/test")
        assert operating_system.bind_name(other, "llm-backend/test")
        assert one.getsockname() == ""


def test_name_of_a_lock_belongs_to_one_socket_on_linux():
    name = f"llm-backend/tests/{os.getpid()}"
    with socket.socket(socket.AF_UNIX) as one, socket.socket(socket.AF_UNIX) as other:
        assert operating_system.bind_name(one, name)
        assert not operating_system.bind_name(other, name)
