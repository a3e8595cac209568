"""Bearer token -> caller."""

import pytest

from llm_backend.controllers.security import ANONYMOUS, Authenticator
from llm_backend.errors import Unauthorized


async def test_without_keys_everybody_is_let_in():
    assert await Authenticator()({}) is ANONYMOUS


@pytest.mark.parametrize("value", ["Bearer sk-one", "bearer sk-one", "Bearer  sk-one "])
async def test_a_known_key_is_a_caller_and_never_shows(value):
    caller = await Authenticator(["sk-two", "sk-one"])({"authorization": value})

    assert caller.key_id
    assert "sk-one" not in repr(caller)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": ""},
        {"authorization": "Bearer"},
        {"authorization": "Bearer sk-on"},
        {"authorization": "Bearer sk-onee"},
        {"authorization": "Basic sk-one"},
        {"authorization": "sk-one"},
        {"authorization": "Bearer \udcff"},
    ],
)
async def test_anything_else_is_kept_out(headers):
    with pytest.raises(Unauthorized) as caught:
        await Authenticator(["sk-one"])(headers)
    assert caught.value.status == 401
