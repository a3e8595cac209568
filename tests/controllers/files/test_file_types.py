"""File types that a purpose accepts."""

import pytest

from llm_backend.controllers.files.file_types import check_type
from llm_backend.errors import InvalidRequest


@pytest.mark.parametrize(
    ("filename", "purpose"),
    [
        ("in.jsonl", "batch"),
        ("IN.JSONL", "fine-tune"),
        ("upload", "batch"),
        ("../ünï.d/upload", "batch"),
        ("cat.webp", "vision"),
        ("a.pdf", "assistants"),
        ("a.exe", "user_data"),
    ],
)
def test_a_name_of_the_purposes_type_or_of_none_passes(filename, purpose) -> None:
    check_type(filename, purpose, param="file")


@pytest.mark.parametrize(
    ("filename", "purpose", "told"),
    [
        ("a.pdf", "batch", "`.jsonl`"),
        ("a.jsonl.gz", "batch", "`.jsonl`"),
        ("a.json", "fine-tune", "`.jsonl`"),
        ("a.svg", "vision", "`.png`"),
    ],
)
def test_a_file_of_another_type_is_refused_with_the_accepted_ones(filename, purpose, told) -> None:
    with pytest.raises(InvalidRequest, match=told) as refused:
        check_type(filename, purpose, param="file")

    assert refused.value.param == "file"
