"""Routing to upstreams by model, else by operation."""

from llm_backend.backends.upstream.config import UpstreamConfig
from llm_backend.backends.upstream.upstream_routing import UpstreamRouting

IMAGES = ("createImage", "Images")
CHAT = ("createChatCompletion", "Chat")


def one(name: str, *models: str) -> UpstreamConfig:
    return UpstreamConfig(name=name, base_url="http://x/v1", models=models)


def test_upstreams_that_name_a_model_are_chosen():
    choices = UpstreamRouting([one("any"), one("a", "qwen*"), one("b", "qwen3", "phi")])

    assert choices.for_model("qwen3", CHAT) == ["a", "b"]
    assert choices.for_model("phi", CHAT) == ["b"]
    assert choices.for_model("gpt-4o", CHAT) == ["any"]


def test_upstream_of_an_operation_is_found_by_id_or_tag():
    choices = UpstreamRouting(
        [one("any"), one("a", "qwen*"), one("art")], {"images": "art", "createThread": "a"}
    )

    assert choices.for_model("dall-e", IMAGES) == ["art"]
    assert choices.for_model("qwen3", IMAGES) == ["a"]  # the model decides first
    assert choices.for_operation(IMAGES) == ["art"]
    assert choices.for_operation(("createThread", "Assistants")) == ["a"]


def test_requests_without_a_model_go_to_one_upstream():
    assert UpstreamRouting([one("a", "x"), one("b"), one("c")]).for_operation(CHAT) == ["b"]
    assert UpstreamRouting([one("a", "x"), one("b", "y")]).for_operation(CHAT) == ["a"]


def test_unknown_model_has_no_upstream():
    assert not UpstreamRouting([one("a", "x")]).serves("y")
