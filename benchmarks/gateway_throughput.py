"""The served gateway (key check, validation, storing) beside a bare pass-through.

    python benchmarks/gateway_throughput.py --seconds 3 --rounds 3

`python -m benchmarks.peers.gateways` puts nginx and LiteLLM's proxy beside them.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.peers.gateways import main

if __name__ == "__main__":
    if "--only" not in sys.argv:
        sys.argv += ["--only", "bare,ours"]
    main()
