"""Store errors as API errors with the names of the client's fields."""

import pytest

from llm_backend.controllers.rendering.store_errors import translate_store_errors
from llm_backend.errors import ContentMissing, InvalidRequest
from llm_backend.store import Database, ObjectMissing, VectorStores, migrate


@pytest.mark.parametrize("parameter", ["after", "before"])
async def test_an_unknown_cursor_names_its_parameter(tmp_path, parameter):
    async with Database.open(f"sqlite:///{tmp_path / 'state.db'}") as database:
        await migrate(database)
        cursors = {"after": None, "before": None, parameter: "nope"}

        told = f"`{parameter}` names `nope`"
        with pytest.raises(InvalidRequest, match=told) as refused, translate_store_errors():
            await VectorStores(database, None).list(**cursors, limit=1, order="asc")

    assert refused.value.param == parameter


def test_missing_bytes_of_an_object_are_an_error_that_no_retry_helps():
    missing = pytest.raises(ContentMissing, match="bytes of this file are missing")
    with missing as refused, translate_store_errors("file"):
        raise ObjectMissing("The object store lacks the object `k/0`.")

    assert refused.value.headers == {"x-should-retry": "false"}
    assert "later" not in refused.value.message
    assert "k/0" not in refused.value.message
