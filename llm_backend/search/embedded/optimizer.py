"""Child process that builds the graph of a collection, in a copy that no other process uses.

    python -m llm_backend.search.embedded.optimizer FOLDER

A process of its own, because Qdrant holds Python's lock meanwhile; it has the lowest priority.
"""

import os
import sys
from pathlib import Path

from llm_backend.search.embedded.shard import Shard


def main(folder: str) -> None:
    """Optimizes the shard in `folder`."""
    os.nice(10)
    shard = Shard(Path(folder))
    shard.optimize()
    shard.flush()
    shard.close()


if __name__ == "__main__":
    main(sys.argv[1])
