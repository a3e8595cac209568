"""What the whole suite shares: options, and the PostgreSQL server."""

import pytest

from tests.postgresql import postgresql_server

__all__ = ["postgresql_server"]  # a fixture: importing it is declaring it


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--fuzz-examples",
        type=int,
        default=2,
        help="examples of each kind that schemathesis sends to each operation",
    )
    parser.addoption(
        "--soak-requests",
        type=int,
        default=300,
        help="requests that the engine must live through without growing",
    )
