"""Checks the subject of a commit: `area: verb ...` or `fix(area): verb ...`, at most 72 characters.

Run by pre-commit with the file of the message, as git's hook `commit-msg`; CONTRIBUTING.md gives
the rule. Prints what is wrong and exits 1 if anything is.
"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

SUBJECT_LIMIT = 72
AREA = r"[a-z][a-z0-9_ .-]*"
SUBJECT = re.compile(rf"(?:fix\({AREA}\)|{AREA}(?:, {AREA})*): (?P<verb>[a-z][a-z-]*)\b")
# Articles, participles and the third person. `embed`, `bring` and `pass` are verbs as they are.
NO_IMPERATIVE = re.compile(
    r"an?$|the$|(?!(?:embed|seed|feed|need|shed|speed|exceed|proceed|bleed|succeed|bring|string)$)"
    r"[a-z]+(?:ed|ing)$|[a-z]+[^su]s$"
)
WRITTEN_BY_GIT = ("Merge ", "Revert ", "fixup! ", "squash! ", "amend! ")


def main(arguments: list[str]) -> int:
    """Checks the message in a file."""
    subject = subject_of(Path(arguments[0]).read_text(encoding="utf-8"))
    found = list(findings(subject))
    for finding in found:
        print(f"Commit subject {subject!r}: {finding}.", file=sys.stderr)
    return 1 if found else 0


def subject_of(message: str) -> str:
    """The first line that is neither empty nor a comment of git's template."""
    lines = (line.rstrip() for line in message.splitlines())
    return next((line for line in lines if line and not line.startswith("#")), "")


def findings(subject: str) -> Iterator[str]:
    """The faults of a subject."""
    if subject.startswith(WRITTEN_BY_GIT):
        return
    if len(subject) > SUBJECT_LIMIT:
        yield f"it has {len(subject)} characters, at most {SUBJECT_LIMIT} are allowed"
    match = SUBJECT.match(subject)
    if match is None:
        yield "it must have the form `area: verb ...` or `fix(area): verb ...` in lower case"
    elif NO_IMPERATIVE.match(match["verb"]):
        yield f"`{match['verb']}` must be a verb in the imperative"
    if subject.endswith("."):
        yield "it must have no full stop at its end"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
