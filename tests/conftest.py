"""Options of the whole suite, and servers that several packages use."""

import functools
import gc
import os
import sys
from collections.abc import Generator, Iterator

import pytest
from httpx._config import DEFAULT_TIMEOUT_CONFIG
from httpx._transports import default as httpx_transports
from httpx2._transports import default as httpx2_transports

from tests.case_journal import CaseJournal
from tests.examples import use_profile
from tests.fuzzing import FINDS, JOURNAL, Fuzzing
from tests.logged import logging_as_it_was
from tests.minilm import minilm_file
from tests.postgresql import postgresql_server
from tests.process_state import process_state
from tests.s3 import s3_server

# fixtures: importing them is declaring them
__all__ = [
    "minilm_file",
    "postgresql_server",
    "s3_server",
]

TIMEOUT_S = 60.0
LONGEST = ("tests/live/test_conformance.py", "tests/live/test_chains.py")


def pytest_configure(config: pytest.Config) -> None:
    _keep_compiled_modules()
    _share_tls_contexts()
    _wait_longer_for_answers()
    fuzz_examples = config.getoption("--fuzz-examples")
    use_profile(fuzz_examples)
    if fuzz_examples is not None:
        resume = config.getoption("--fuzz-continue")
        fuzzing = Fuzzing(finds=FINDS, journal=CaseJournal(JOURNAL), resume=resume)
        config.pluginmanager.register(fuzzing)


def _keep_compiled_modules() -> None:
    """Writes bytecode even if the environment forbids it: otherwise each process that a test starts
    compiles the package again, which is a third of the processor time of a server's start."""
    sys.dont_write_bytecode = False
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


def _share_tls_contexts() -> None:
    """Gives HTTP clients with the same TLS settings one context. Otherwise each of the thousands
    that tests make reads all certificates of the machine, which takes 20 ms, and then speaks to
    127.0.0.1."""
    for library in (httpx_transports, httpx2_transports):
        create = library.create_ssl_context
        library.create_ssl_context = functools.cache(create)  # type: ignore[attr-defined]


def _wait_longer_for_answers() -> None:
    """Sets the timeout of requests that name none: httpx's five seconds pass on a machine that is
    busy with other tests. Functions and clients have this object as their default."""
    for phase in ("connect", "read", "write", "pool"):
        setattr(DEFAULT_TIMEOUT_CONFIG, phase, TIMEOUT_S)


@pytest.fixture(scope="module", autouse=True)
def _logging_of_this_module() -> Iterator[None]:
    """Applications that tests open in this process configure the logging of all of it."""
    with logging_as_it_was():
        yield


@pytest.fixture(scope="module", autouse=True)
def _process_of_this_module() -> Iterator[None]:
    """A module whose traces others would find fails by itself."""
    before = process_state()
    yield
    assert process_state() == before


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Keeps modules and tests away from the garbage collector: they stay until the end, and to
    search them again and again took a quarter of the processor time of tests in this process."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
        gc.collect()
        gc.freeze()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the longest files first: what is left at the end is short, and no process waits long."""
    items.sort(key=lambda item: not item.nodeid.startswith(LONGEST))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--fuzz-examples",
        type=int,
        help="explore at random, with this number of examples of each property and operation",
    )
    parser.addoption(
        "--fuzz-continue",
        action="store_true",
        help="leave out the tests that the last exploration has finished, and count on",
    )
    parser.addoption(
        "--clients",
        action="store_true",
        help="a client of docs/clients.md that is not installed is a failure",
    )
    parser.addoption(
        "--image",
        action="store_true",
        help="build the container image, and run it and the manifests (root on Debian)",
    )
    parser.addoption(
        "--portable-image",
        action="store_true",
        help="with --image, compile the portable llama.cpp of `make image` (ten minutes)",
    )
    parser.addoption(
        "--soak-requests",
        type=int,
        default=300,
        help="requests that the engine must live through without growing",
    )
    parser.addoption(
        "--every-large-body",
        action="store_true",
        help="the largest bodies of every operation, in every way to be large",
    )
    parser.addoption(
        "--large-body",
        help="with --every-large-body, only those whose `operation | shape` matches",
    )
