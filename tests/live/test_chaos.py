"""A few rounds of `make chaos`, so that the tool itself works and what is simplest holds."""

import random

from tests.chaos.far import Far
from tests.chaos.rounds import Rounds
from tests.engine.gguf_models import write_bert
from tests.upstream import serving


async def test_acknowledged_writes_survive_the_kill_of_any_process(tmp_path):
    far = Far()
    async with serving(far.app) as port:
        rounds = Rounds(
            folder=tmp_path / "served",
            far=far,
            far_port=port,
            embedder=write_bert(tmp_path / "embedder.gguf"),
            database_url=None,
            draw=random.Random(7),
            round_s=1.0,
        )
        await rounds.run(2)

    assert rounds.killed.total() >= 2
    assert rounds.facts.checked.total() > 0
