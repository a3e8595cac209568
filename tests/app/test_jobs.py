from pathlib import Path

from llm_backend.app.jobs import index_name
from llm_backend.search import EmbeddedIndex


async def test_jobs_of_an_index_are_not_claimed_without_it(tmp_path: Path):
    one, other = EmbeddedIndex(tmp_path / "vectors"), EmbeddedIndex(tmp_path / "vectors")
    name = await index_name(one)

    assert name is not None
    assert await index_name(other) is None
    await one.close()
    assert await index_name(other) == name
    await other.close()
