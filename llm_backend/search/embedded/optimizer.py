"""The child process that builds a collection's graph, in a copy that is nobody else's.

    python -m llm_backend.search.embedded.optimizer FOLDER

In a process of its own, since Qdrant holds Python's lock meanwhile; and behind everybody else.
"""

import os
import sys
from pathlib import Path

from llm_backend.search.embedded.shard import Shard

__all__ = ["main"]


def main(folder: str) -> None:
    """Optimizes the shard in `folder`."""
    os.nice(10)
    shard = Shard(Path(folder))
    shard.optimize()
    shard.flush()
    shard.close()


if __name__ == "__main__":
    main(sys.argv[1])
