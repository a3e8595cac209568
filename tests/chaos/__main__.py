"""`python -m tests.chaos`: rounds of random SIGKILLs, and their figures."""

import argparse
import asyncio
import random
import secrets
import signal
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from tests.chaos.far import Far
from tests.chaos.rounds import Rounds
from tests.engine.gguf_models import write_bert
from tests.postgresql import running_postgresql
from tests.upstream import serving


def main() -> int:
    """Runs the rounds; the exit code."""
    parser = argparse.ArgumentParser(prog="make chaos", description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--database", choices=("sqlite", "postgresql"), default="sqlite")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10**6))
    parser.add_argument("--round-s", type=float, default=4.0)
    parser.add_argument("--back-s", type=float, default=90.0)
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # and end the tree
    sys.stdout.write(f"seed {given.seed}, {given.rounds} rounds, {given.database}\n")
    with ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="chaos-"))
        url = None
        if given.database == "postgresql":
            url = stack.enter_context(running_postgresql()).new_database()
        rounds = asyncio.run(_run(folder, url, given))
    sys.stdout.write(f"{rounds}\n")
    return 0


async def _run(folder: Path, url: str | None, given: argparse.Namespace) -> str:
    far = Far()
    async with serving(far.app) as port:
        rounds = Rounds(
            folder=folder,
            far=far,
            far_port=port,
            embedder=write_bert(folder / "embedder.gguf"),
            database_url=url,
            draw=random.Random(given.seed),
            round_s=given.round_s,
            back_s=given.back_s,
        )
        try:
            await rounds.run(given.rounds)
        except BaseException:
            sys.stdout.write(f"{rounds.figures()}\nthe server's log is {rounds.tree.log}\n")
            raise
        return rounds.figures()


if __name__ == "__main__":
    sys.exit(main())
