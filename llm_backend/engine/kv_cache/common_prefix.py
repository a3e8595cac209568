"""Length of the common prefix of two token lists."""

from collections import abc


def common_prefix_length(first: abc.Sequence[int], second: abc.Sequence[int]) -> int:
    """Returns the length of the common prefix of two token lists."""
    end = min(len(first), len(second))
    step, same = 16, 0
    while same < end and first[same : same + step] == second[same : same + step]:
        same = min(same + step, end)
        step *= 2
    high = min(same + step, end)
    while same < high:  # the length is in [same, high]
        middle = (same + high + 1) // 2
        if first[same:middle] == second[same:middle]:
            same = middle
        else:
            high = middle - 1
    return same
