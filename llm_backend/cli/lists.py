"""Lines of lists, which fit a terminal of 80 columns."""

import textwrap

COLUMNS = 80


def print_entry(title: str, *facts: str | None) -> None:
    """Print the name of an entry, and its facts indented below. Only a word that is
    longer than a line makes a longer line: then it can still be copied."""
    print(wrap(title))
    print(wrap("; ".join(filter(None, facts)), indent="    "))


def wrap(text: str, indent: str = "") -> str:
    """Return the text in lines of 80 columns, all but the first indented."""
    return textwrap.fill(
        text,
        COLUMNS,
        initial_indent=indent,
        subsequent_indent="    ",
        break_on_hyphens=False,
        break_long_words=False,
    )
