"""Store errors as API errors with the names of the client's fields."""

import pytest

from llm_backend.controllers.rendering.store_errors import translate_store_errors
from llm_backend.errors import InvalidRequest
from llm_backend.store import Database, VectorStores, migrate


@pytest.mark.parametrize("parameter", ["after", "before"])
async def test_an_unknown_cursor_names_its_parameter(tmp_path, parameter):
    async with Database.open(f"sqlite:///{tmp_path / 'state.db'}") as database:
        await migrate(database)
        cursors = {"after": None, "before": None, parameter: "nope"}

        told = f"`{parameter}` names `nope`"
        with pytest.raises(InvalidRequest, match=told) as refused, translate_store_errors():
            await VectorStores(database, None).list(**cursors, limit=1, order="asc")

    assert refused.value.param == parameter
