"""Search results as text for the model's prompt, and citations in its answer (pure)."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

NOTHING = "Nothing was found in the files. Say so if the answer depends on them."
_MARK = re.compile(r"\[(\d{1,4})\]")


@dataclass(frozen=True, kw_only=True)
class Passage:
    """A retrieved chunk of a file."""

    file_id: str
    filename: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Citation:
    """A cited file; `index` is its position in the list of retrieved files."""

    file_id: str
    filename: str
    index: int


def format_passages(passages: Sequence[Passage], first: int = 1) -> str:
    """Formats the passages, numbered from `first`, or a text that there are none."""
    if not passages:
        return NOTHING
    texts = [f"[{number}] {one.filename}\n{one.text}" for number, one in enumerate(passages, first)]
    return "\n\n".join([*texts, f"Cite what you use by its number, as in [{first}]."])


def find_citations(text: str, passages: Sequence[Passage], skipped: int = 0) -> list[Citation]:
    """Finds the files that a text cites by passage numbers, each once. If it cites none, returns
    all files except those of the first `skipped` passages, which belong to another answer."""
    numbers = [int(number) - 1 for number in _MARK.findall(text)]
    cited = [passages[number] for number in numbers if 0 <= number < len(passages)]
    order = list(dict.fromkeys(one.file_id for one in passages))
    files = {one.file_id: one.filename for one in cited or passages[skipped:]}
    return [
        Citation(file_id=file_id, filename=filename, index=order.index(file_id))
        for file_id, filename in files.items()
    ]
