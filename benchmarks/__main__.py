"""Runs benchmarks: `python -m benchmarks [NAME ...]`; without names all that need no GPU.

Each is a program of its own in this folder and prints its own table; run it by hand for options.
"""

import os
import platform
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).parent
NEEDS_GPU = "gpu"  # it fails without one, and is run by name only


def main() -> int:
    names = sorted(path.stem for path in FOLDER.glob("*.py") if not path.stem.startswith("_"))
    wanted = sys.argv[1:] or [name for name in names if name != NEEDS_GPU]
    if unknown := set(wanted) - set(names):
        print(f"No benchmark is named {', '.join(sorted(unknown))}; there is {', '.join(names)}.")
        return 2
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    failed = [name for name in wanted if not runs(name)]
    if failed:
        print(f"Failed: {', '.join(failed)}")
    return 1 if failed else 0


def runs(name: str) -> bool:
    print(f"\n## {name}\n", flush=True)
    return subprocess.run([sys.executable, "-m", f"benchmarks.{name}"], check=False).returncode == 0


if __name__ == "__main__":
    sys.exit(main())
