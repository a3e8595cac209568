"""Block-wise grants: unused grants beyond two blocks are returned, except for one block."""

import pytest

from llm_backend.block_grants import surplus


@pytest.mark.parametrize(
    ("unused", "block", "returned"), [(10, 5, 0), (11, 5, 6), (0, 0, 0), (1, 0, 1), (-3, 5, 0)]
)
def test_surplus_is_returned_beyond_two_blocks(unused: int, block: int, returned: int) -> None:
    assert surplus(unused, block) == returned
