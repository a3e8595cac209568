"""Files to text: every format, and files that are broken or meant to harm."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator

import pytest

from llm_backend.extraction import (
    ExtractedText,
    ExtractionLimitExceeded,
    ExtractionLimits,
    Extractor,
    Format,
    NotShort,
    ReaderKilled,
    UnreadableFile,
    UnsupportedFile,
)
from llm_backend.extraction.reader import clean
from tests.extraction.documents import archive, docx, endless_docx, page_tree_pdf, pdf
from tests.serving import children_of


async def extracted(
    data: bytes, filename: str, media_type: str = "", **limits: float
) -> ExtractedText:
    async def pieces() -> AsyncIterator[bytes]:
        yield data[:100]
        yield data[100:]

    extractor = Extractor(ExtractionLimits(**limits))
    return await extractor.extract(pieces(), filename=filename, media_type=media_type)


async def whole(data: bytes) -> AsyncIterator[bytes]:
    yield data


def readers() -> list[int]:
    """The process ids of this process's readers."""
    return children_of(os.getpid(), b"llm_backend.extraction.reader")


@pytest.mark.parametrize(
    ("data", "filename", "text", "format"),
    [
        (b"Plain words.\r\nMore.", "a.txt", "Plain words.\nMore.", Format.TEXT),
        ("\ufeffGrüße".encode("utf-16"), "a", "Grüße", Format.TEXT),
        (b"def f():\n    return 1\n", "a.py", "def f():\n    return 1\n", Format.TEXT),
        (b'{"a": 1}', "a.json", '{"a": 1}', Format.TEXT),
        (b"# Head\n\ntext", "a.md", "# Head\n\ntext", Format.MARKDOWN),
        (b"name,age\nAda,36\n", "a.csv", "name,age\nAda,36\n", Format.TABLE),
    ],
)
async def test_extractor_decodes_plain_text(
    data: bytes, filename: str, text: str, format: Format
) -> None:
    found = await extracted(data, filename)

    assert found.text.removeprefix("\ufeff") == text
    assert found.format is format


async def test_extractor_joins_the_pages_of_a_pdf() -> None:
    found = await extracted(pdf("The first page.", "The second page."), "report.bin")

    assert found == ExtractedText(
        text="The first page.\n\nThe second page.\n\n", format=Format.TEXT
    )


def test_extractor_joins_hyphenated_words() -> None:
    assert clean("self-ref\ufffeerential\r\n\0") == "self-referential\n"


@pytest.mark.parametrize(
    ("text", "filename"),
    [
        ("A PDF begins with %PDF-1.7, a text does not.\n", "notes.txt"),
        ('SIGNATURES = {b"%PDF-": "pdf"}\n', "signatures.py"),
        ("é" * 490 + " %PDF-1.7 " + "é" * 100, "cut.txt"),  # the head ends inside a character
    ],
)
async def test_extractor_keeps_a_text_that_mentions_the_signature_of_a_pdf(
    text: str, filename: str
) -> None:
    assert (await extracted(text.encode(), filename)).text == text


@pytest.mark.parametrize(
    ("before", "filename", "media_type"),
    [
        (b"\xef\xbb\xbf\r\n", "letter", ""),
        (b"\0\0\0", "letter", ""),
        (b"\xff\xfe ", "letter", ""),
        (b"content-type: application/pdf\r\n\r\n", "letter.PDF", ""),
        (b"content-type: application/pdf\r\n\r\n", "letter", "application/pdf"),
    ],
)
async def test_extractor_finds_a_pdf_after_other_bytes(
    before: bytes, filename: str, media_type: str
) -> None:
    found = await extracted(before + pdf("Good day."), filename, media_type)

    assert "Good day." in found.text


async def test_extractor_keeps_headings_of_docx() -> None:
    found = await extracted(docx("One.", "Two.", heading="Title"), "letter.docx")

    assert found == ExtractedText(text="# Title\n\nOne.\n\nTwo.\n", format=Format.MARKDOWN)


@pytest.mark.parametrize("name", ["a.docx", "a.html"])
async def test_extractor_keeps_names_and_addresses(name: str) -> None:
    text = "Call max_num_results of a_b@example.org, *not* 2*3."
    data = docx(text) if name == "a.docx" else f"<!DOCTYPE html><p>{text}".encode()

    assert text in (await extracted(data, name)).text


@pytest.mark.parametrize(
    ("head", "encoding"),
    [
        ("", "utf-8"),
        ("", "utf-8-sig"),
        ("", "utf-16"),
        ('<meta charset="latin2">', "latin2"),
        ('<meta charset="utf-8">', "utf-8"),
    ],
)
async def test_extractor_decodes_html_of_few_words(head: str, encoding: str) -> None:
    page = head + "<ul>" + "<li>Łódź</li>" * 5 + "</ul>"

    assert (await extracted(page.encode(encoding), "a.html")).text == "- Łódź\n" * 5


async def test_extractor_converts_html_to_markdown_without_scripts() -> None:
    page = (
        b"<!DOCTYPE html><title>T</title><style>p {}</style><h2>Head</h2><p>Some <b>bold</b> words."
        b"<script>alert(1)</script><ul><li>one<li>two</ul><table><tr><th>a</th></tr>"
        b"<tr><td>1</td></tr></table>"
    )

    found = await extracted(page, "page", "text/plain")

    assert found.format is Format.MARKDOWN
    assert "## Head" in found.text
    assert "Some **bold** words." in found.text
    assert "- one" in found.text
    assert "| 1 |" in found.text
    assert "alert" not in found.text


@pytest.mark.parametrize(
    ("data", "filename", "reason"),
    [
        (b"\x89PNG\r\n\x1a\n\0\0", "a.png", "not text in UTF-8 or UTF-16, from byte 0"),
        (b"a\0b", "a.txt", "NUL bytes"),
        (archive({"a.txt": "a"}), "a.zip", "archive"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "a.doc", "before 2007"),
        (b"just text", "a.docx", "is not one"),
    ],
)
async def test_extractor_refuses_unsupported_formats(
    data: bytes, filename: str, reason: str
) -> None:
    with pytest.raises(UnsupportedFile, match=reason):
        await extracted(data, filename)


@pytest.mark.parametrize(
    ("data", "filename", "reason"),
    [
        (b"   \n", "a.txt", "no text"),
        (b"%PDF-1.4\ngarbage", "a.pdf", "PDF is damaged"),
        (pdf(""), "a.pdf", "images"),
        (docx("One.")[:200], "a.docx", "damaged"),
        (archive({"a.txt": "a"}), "a.docx", "no word/document.xml"),
        (archive({"word/document.xml": "<not xml"}), "a.docx", "damaged"),
    ],
)
async def test_extractor_reports_damaged_files(data: bytes, filename: str, reason: str) -> None:
    with pytest.raises(UnreadableFile, match=reason):
        await extracted(data, filename)


async def test_extractor_refuses_a_zip_bomb_by_its_directory() -> None:
    bomb = archive({"word/document.xml": "x" * 300_000_000})

    with pytest.raises(ExtractionLimitExceeded, match="unpacks to 300000000 bytes"):
        await extracted(bomb, "a.docx")


async def test_extractor_aborts_at_the_memory_limit() -> None:
    paragraphs = docx(*["word"] * 200_000)

    with pytest.raises(UnreadableFile, match="memory limit"):
        await extracted(paragraphs, "a.docx", memory_bytes=150_000_000)


async def test_extractor_aborts_at_deep_nesting() -> None:
    with pytest.raises(ExtractionLimitExceeded, match="nested too deeply"):
        await extracted(b"<html>" + b"<div>" * 20_000 + b"text", "a.html")


async def test_extractor_kills_a_reader_at_the_timeout() -> None:
    endless = docx(*["word"] * 100_000)

    with pytest.raises(ExtractionLimitExceeded, match=r"longer than 0\.5 s"):
        await extracted(endless, "a.docx", timeout_s=0.5)


async def test_extractor_refuses_text_over_the_limit() -> None:
    with pytest.raises(ExtractionLimitExceeded, match="more than 10 bytes of text"):
        await extracted(b"x" * 11, "a.txt", text_bytes=10)
    with pytest.raises(ExtractionLimitExceeded, match="more than 10 bytes of text"):
        await extracted(pdf("A longer line."), "a.pdf", text_bytes=10)


async def test_extractor_rewinds_a_spooled_file_for_the_reader() -> None:
    page = b"<html><p>first</p>" + b"<!-- a remark -->\n" * 70_000 + b"<p>last</p>"

    found = await extracted(page, "a.html")

    assert found.text.split() == ["first", "last"]


async def test_extractor_slow_files_do_not_delay_short_ones() -> None:
    extractor = Extractor(ExtractionLimits(slice_s=0.6, timeout_s=600))
    hostile = [
        asyncio.create_task(extractor.extract(whole(data), filename=name))
        for name, data in (
            ("a.docx", endless_docx()),
            ("b.docx", endless_docx()),
            ("c.html", b"<html>" + b"<p><b>x</p>" * 2_000_000),
            ("d.docx", endless_docx()),
        )
    ]
    await asyncio.sleep(0)
    try:
        text = await extractor.extract(whole(b"Plain."), filename="e.txt")
        assert text.text == "Plain."
        found = await extractor.extract(whole(pdf("Harmless.")), filename="e.pdf")

        assert found.text == "Harmless.\n\n"
        assert not any(task.done() for task in hostile)
        assert len(readers()) <= 2
    finally:
        for task in hostile:
            task.cancel()
        await asyncio.gather(*hostile, return_exceptions=True)
    assert readers() == []


async def test_extractor_aborts_at_a_huge_page_tree() -> None:
    with pytest.raises(UnreadableFile):
        await extracted(page_tree_pdf(depth=100_000), "a.pdf", timeout_s=20)


async def test_extractor_only_short_raises_for_a_long_file() -> None:
    extractor = Extractor(ExtractionLimits(slice_s=0.6, timeout_s=600))

    with pytest.raises(NotShort):
        await extractor.extract(whole(endless_docx()), filename="a.docx", only_short=True)
    assert readers() == []


@pytest.mark.parametrize("kills", [1, 2])
async def test_extractor_retries_a_reader_killed_from_outside(kills: int) -> None:
    extractor = Extractor(ExtractionLimits(slice_s=600, timeout_s=600))
    data = docx(*["word"] * 3_000)
    task = asyncio.create_task(extractor.extract(whole(data), filename="a.docx"))
    killed: set[int] = set()
    while len(killed) < kills and not task.done():
        await asyncio.sleep(0.005)
        for pid in set(readers()) - killed:
            os.kill(pid, signal.SIGKILL)
            killed.add(pid)

    if kills == 1:
        assert (await task).text.count("word") == 3_000
    else:
        with pytest.raises(ReaderKilled, match="killed"):
            await task
