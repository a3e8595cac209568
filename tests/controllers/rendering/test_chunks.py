from llm_backend.backends.base import TextDelta
from llm_backend.controllers.rendering.chunks import ChunkHead, TextOffsets, text_chunk
from llm_backend.engine.messages import TokenLogprob

HEAD = ChunkHead(id="x", kind="text_completion", created_at=0, model="m")


def test_tokens_of_a_stream_begin_where_they_are_in_the_whole_text():
    """Their logprobs come once all of their text has: a stop string could begin with its end, or a
    character be incomplete."""
    offsets, chunks = TextOffsets(), []
    for text, tokens in (
        ("tru", ()),
        ("e ", (b"true", b" ")),
        ("a", ()),
        ("é", (b"a\xc3", b"\xa9")),
        ("!", (b"!",)),
    ):
        logprobs = [TokenLogprob(token=1, bytes=one, logprob=-1.0) for one in tokens]
        delta = TextDelta(choice=0, text=text, logprobs=logprobs)
        chunks += text_chunk(HEAD, 0, delta, offsets)["choices"]

    given = [one["logprobs"]["text_offset"] for one in chunks if one["logprobs"]]
    assert given == [[0, 4], [5, 6], [7]]
