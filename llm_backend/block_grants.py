"""Block-wise grants: a shared limit is granted to processes in blocks, used up in memory, and only
a surplus is returned. The grantor is asked once for many requests."""

BLOCKS = 20
"""Blocks that a limit is divided into; a limit below that is granted one by one."""


def surplus(unused: int, block: int) -> int:
    """Returns the part of an unused grant to return: all but one block, once it exceeds two."""
    return unused - block if unused > 2 * block else 0
