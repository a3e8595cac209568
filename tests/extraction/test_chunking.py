"""Chunks: as large as they may be, cut where the text allows it, and nothing lost."""

import re
import time
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from llm_backend.extraction import Format
from llm_backend.extraction.chunking import Chunking, TextChunk, split_into_chunks


async def words(texts: Sequence[str]) -> list[int]:
    """A tokenizer: words, and what is none."""
    return [len(re.findall(r"\w+|[^\w\s]", text)) for text in texts]


async def chunked(
    text: str, *, size: int, overlap: int = 0, format: Format = Format.TEXT
) -> list[TextChunk]:
    return await split_into_chunks(
        text, format, Chunking(max_tokens=size, overlap_tokens=overlap), words
    )


def restored(chunks: Sequence[TextChunk]) -> str:
    return "".join(chunk.text[chunk.repeated :] for chunk in chunks)


@given(
    st.text(alphabet="ab c.\n#`|é漢", min_size=1, max_size=600).filter(str.strip),
    st.integers(8, 60),
    st.sampled_from([Format.TEXT, Format.MARKDOWN, Format.TABLE]),
)
async def test_chunking_loses_no_text_and_exceeds_no_limit(
    text: str, size: int, format: Format
) -> None:
    chunks = await chunked(text, size=size, overlap=size // 2, format=format)

    assert restored(chunks) == text
    assert all(chunk.text.strip() for chunk in chunks)
    assert max(await words([chunk.text for chunk in chunks])) <= size


async def test_chunking_keeps_a_short_text_in_one_chunk() -> None:
    assert await chunked("Just this.", size=100) == [
        TextChunk(text="Just this.", repeated=0, tokens=3)
    ]


async def test_chunking_prefers_headings_to_paragraphs() -> None:
    text = "# One\n\na b c d e\n\nf g\n\n# Two\n\nh i j\n\nk l m n\n\n"

    chunks = await chunked(text, size=16, format=Format.MARKDOWN)

    assert [chunk.text for chunk in chunks] == [
        "# One\n\na b c d e\n\nf g\n\n",
        "# Two\n\nh i j\n\nk l m n\n\n",
    ]


async def test_chunking_ignores_headings_in_code_blocks() -> None:
    text = "a b c\n\n```\nd\n# e\nf g h\n```\ni\n"

    chunks = await chunked(text, size=20, format=Format.MARKDOWN)

    assert not any(chunk.text.startswith("# e") for chunk in chunks)


async def test_chunking_overlaps_chunks() -> None:
    text = "".join(f"word{number} and more of it.\n" for number in range(20))

    first, second, *_ = await chunked(text, size=30, overlap=12)

    assert first.text.endswith(second.text[: second.repeated])
    assert second.text[: second.repeated].count("\n") == 2


async def test_chunking_repeats_the_head_line_of_a_table() -> None:
    text = "name,age\n" + "".join(f"n{number},{number}\n" for number in range(20))

    chunks = await chunked(text, size=20, overlap=4, format=Format.TABLE)

    assert len(chunks) > 3
    assert all(chunk.text.startswith("name,age\nn") for chunk in chunks)
    assert restored(chunks) == text


async def test_chunking_repeats_the_whole_head_line_of_a_wide_table() -> None:
    head = ",".join(f"column{number}" for number in range(60)) + "\n"
    text = head + "".join(f"n{number},{number}\n" for number in range(200))

    chunks = await chunked(text, size=300, overlap=40, format=Format.TABLE)

    assert len(chunks) > 2
    assert all(chunk.text.startswith(f"{head}n") for chunk in chunks)
    assert restored(chunks) == text


async def test_chunking_cuts_an_endless_line_between_words() -> None:
    text = "words and words " * 200

    chunks = await chunked(text, size=50)

    assert all(chunk.text.endswith("words ") or chunk.text.endswith("and ") for chunk in chunks)


async def test_chunking_scans_a_line_of_dots_in_linear_time() -> None:
    began_s = time.process_time()
    chunks = await chunked("." * 40_000, size=10_000)

    assert restored(chunks) == "." * 40_000
    assert time.process_time() - began_s < 2  # a minute, from every dot anew
