"""Checks the project's language: names, docstrings, comments and pages in the field's words.

Python files are parsed. Of JavaScript, C and shell scripts all comments and the names of functions
are checked, of YAML and HTML the whole text. Prints one line for each finding,
`FILE:LINE: what is wrong`, and exits 1 if there is any. Run by `make lint`; CONTRIBUTING.md gives
the rules with examples.
"""

import ast
import io
import re
import subprocess
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

HOUSE_WORDS = re.compile(
    r"\b(nobody|somebody|whoever|whosever|talkers?|newcomers?|berths?|lodgers?|lodgings?)\b", re.I
)
THINGS = (
    "process|request|server|worker|engine|model|sequence|task|thread|upstream|client|connection|"
    "row|file|job|process that|one|those|others?"
)
WHO_FOR_THINGS = re.compile(rf"\b(?:{THINGS})s? who\b|(?:^|[.:;] )Who \w+s\b", re.I)
# A quantity without a name: `tokens` says which number *so many tokens* means.
UNNAMED_QUANTITY = re.compile(
    r"^\W*So (?:few|many|much)\b"
    r"|\b(?:after|for|has|in|least|most|of|takes|than|to|took|waits|with) "
    r"so (?:few|long|many|much|often)\b(?! (?:as|that)\b)"
)
# A clause without its verb: *None without one* is `None if there is none`.
ELLIPSIS = re.compile(r"\b(?:None|[Ee]mpty) without\b")
ADVICE = {
    HOUSE_WORDS: "name the thing with a noun",
    WHO_FOR_THINGS: "name the thing with a noun",
    UNNAMED_QUANTITY: "name the quantity, such as `count`",
    ELLIPSIS: "write a clause with a verb, such as `if there is none`",
}
QUESTION = re.compile(r"^(What|Who|Whose|Where|Whether|How|Why|Which)\b")
IRREGULAR = (
    "told asked said kept held made given shown known taken left sent begun found put written met "
    "heard done gone drawn swept chosen bound"
)
WORD = (
    rf"(?:{'|'.join(IRREGULAR.split())}|(?!(?:embed|seed|feed|need|shed|speed|exceed|proceed|bleed|"
    r"succeed)(?:_|$))[a-z]+ed)"
)
AFTER = "again|as|at|before|behind|by|first|for|from|in|later|of|on|or|out|to|up|with"
# `stored_bytes` is a noun with an attribute; `stored` and `stored_by` are no verbs.
PARTICIPLE = re.compile(rf"^_*(?:(?:told|asked|said)(?:_|$)|{WORD}(?:$|_(?:{AFTER})(?:_|$)))")
VERB_OF_SPEECH = re.compile(r"(?:^|_)(?:told|asked|said)(?=_|$)")
# The subject of a test's name is a noun, and its verb one that the code could do.
TEST_NAME = re.compile(
    r"^test_(?:what|whatever|which|whose|where|whether|when|how|why)(?=_|$)"
    r"|_(?:who|whoever|nobody|everybody|asks?|asked|tells?|told|says?|said|knows?|wants?)(?=_|$)"
)
# A value that a message refuses has broken a rule: `n` *must be* at least 0.
RULE_AS_FACT = re.compile(
    r"` (?:is|are|has|have) (?:at least|at most|up to|from|one of)\b|\bor left out\b"
)
# Names that other libraries or the document prescribe.
PRESCRIBED = {"put", "connection_made", "handled"}
# Comments that a formatter moved from the end of a long line into or behind a parenthesis.
IN_PARENTHESIS = re.compile(r"^[^\n#]*[=,(] ?\(\n[^\n]*  # [^\n]*\n\s*\)", re.M)
BEHIND_PARENTHESIS = re.compile(r"^\s*[)\]}]+[:,]?  # (?!fmt:|noqa|type:|pragma|nosec)", re.M)
# Folders with texts of other projects, or of the built-in model's small talk.
OTHERS_TEXT = {"vendor", "node_modules", "knowledge"}
# Files without a parser here: their comments, or None for the whole text, and names of functions.
SLASHES = re.compile(r"(?<!:)//.*|/\*[\s\S]*?\*/")
HASHES = re.compile(r"(?<!\S)#.*")
TEXT_FILES: dict[str, tuple[re.Pattern[str] | None, re.Pattern[str] | None]] = {
    ".js": (SLASHES, re.compile(r"""
        \bfunction\*?\ (\w+)                                      # function name(
        | \bconst\ (\w+)\ =\ (?:async\ )?(?:\([^()]*\)|\w+)\ =>      # const name = () =>
        | ^\ \ (?:static\ |async\ )*\*?\#?(\w+)\([^()]*\)\ \{$   # a method; getters are values
        """, re.X | re.M)),
    ".c": (SLASHES, re.compile(r"^\w[\w *]*\b(\w+)\([^;]*$", re.M)),
    ".sh": (HASHES, re.compile(r"^(\w+)\(\) *\{", re.M)),
    ".yaml": (None, None),
    ".css": (SLASHES, None),
    ".html": (None, None),
}  # fmt: skip


def main(arguments: list[str]) -> int:
    """Checks the files that git tracks below the given folders, or all of them."""
    listed = ["git", "ls-files", "--", *arguments]
    names = subprocess.run(listed, check=True, capture_output=True, text=True).stdout.split()
    count = 0
    for name in names:
        path = Path(name)
        for line, message in sorted(findings(path)):
            count += 1
            print(f"{path}:{line}: {message}")
    print(f"{count} findings in {len(names)} files" if count else "The language is plain.")
    return 1 if count else 0


def findings(path: Path) -> Iterator[tuple[int, str]]:
    """The findings in one file, as line and sentence."""
    if path == Path("docs/glossary.md") or path == Path("scripts/check_words.py"):
        return
    if path.suffix == ".md" and path.name != "CHANGELOG.md":
        yield from in_text(path.read_text(), 1)
    if path.suffix == ".py" and "migrations/versions" not in str(path):
        source = path.read_text()
        yield from in_prose(source)
        yield from in_definitions(ast.parse(source), is_test=path.parts[0] == "tests")
        yield from in_broken_comments(source)
    if path.suffix in TEXT_FILES and not OTHERS_TEXT & set(path.parts):
        yield from in_text_file(path.read_text(), *TEXT_FILES[path.suffix])


def in_text(text: str, first_line: int) -> Iterator[tuple[int, str]]:
    """Finds the patterns of `ADVICE` in a text that begins at `first_line`."""
    for number, line in enumerate(text.splitlines(), first_line):
        for pattern, advice in ADVICE.items():
            for match in pattern.finditer(line):
                yield number, f"`{match.group().strip()}`: {advice}"


def in_prose(source: str) -> Iterator[tuple[int, str]]:
    """Findings in comments and strings, docstrings included."""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type in (tokenize.COMMENT, tokenize.STRING):
            yield from in_text(token.string, token.start[0])


def in_broken_comments(source: str) -> Iterator[tuple[int, str]]:
    """Comments that a formatter has moved away from their line."""
    for pattern in (IN_PARENTHESIS, BEHIND_PARENTHESIS):
        for match in pattern.finditer(source):
            yield line_of(source, match), "comment in or behind a parenthesis: put it above"


def in_text_file(
    text: str, comments: re.Pattern[str] | None, functions: re.Pattern[str] | None
) -> Iterator[tuple[int, str]]:
    """Findings in the comments of a file, or in all of it, and in its names of functions."""
    if comments is None:
        yield from in_text(text, 1)
    else:
        for match in comments.finditer(text):
            line = line_of(text, match)
            yield from in_text(match.group(), line)
            if match.group().startswith("/**"):
                yield from in_first_words(match.group().removeprefix("/**").lstrip(" *\n"), line)
    for match in functions.finditer(text) if functions else ():
        name = next(filter(None, match.groups()))
        if PARTICIPLE.match(snake_case(name)):
            yield line_of(text, match), f"function `{name}`: begin with a verb in the present"


def in_first_words(docstring: str, line: int) -> Iterator[tuple[int, str]]:
    """A question word at the beginning of a docstring."""
    if match := QUESTION.match(docstring):
        yield line, f"docstring begins with `{match.group()}`: begin with a noun or a verb"


def line_of(text: str, match: re.Match[str]) -> int:
    """The line, from 1, on which a match begins."""
    return text.count("\n", 0, match.start()) + 1


def snake_case(name: str) -> str:
    """A name in camel case with its words separated by underscores."""
    return re.sub(r"(?<=[a-z])([A-Z])", r"_\1", name).lower()


def in_definitions(tree: ast.Module, *, is_test: bool) -> Iterator[tuple[int, str]]:
    """Findings in names of functions and in first lines of docstrings."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield from in_first_words(ast.get_docstring(node) or "", getattr(node, "lineno", 1))
        if is_test:
            yield from in_test_name(node)
            continue
        if isinstance(node, ast.Raise):
            yield from in_message(node)
        if isinstance(node, ast.arg | ast.Name | ast.Attribute):
            name = variable_name(node)
            if name is not None and VERB_OF_SPEECH.search(name):
                yield node.lineno, f"variable `{name}`: name the value with a noun"
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if node.name not in PRESCRIBED and PARTICIPLE.match(node.name) and not is_value(node):
            yield node.lineno, f"function `{node.name}`: begin with a verb in the present"


def in_test_name(node: ast.AST) -> Iterator[tuple[int, str]]:
    """A question word or a verb of speech in the name of a test."""
    if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return
    if node.name.startswith("test_") and (match := TEST_NAME.search(node.name)):
        word = match.group().removeprefix("test").strip("_")
        yield node.lineno, f"test `{node.name}` with `{word}`: name the subject and its behaviour"


def in_message(node: ast.Raise) -> Iterator[tuple[int, str]]:
    """A rule in the message of an error that is written as if it were a fact."""
    for part in ast.walk(node):
        if isinstance(part, ast.Constant) and isinstance(part.value, str):
            for match in RULE_AS_FACT.finditer(part.value):
                word = match.group().lstrip("` ")
                yield part.lineno, f"message with `{word}`: say `must be` or `absent`"


def variable_name(node: ast.arg | ast.Name | ast.Attribute) -> str | None:
    """The name of an argument, or of a variable that is assigned; None for one that is read."""
    if isinstance(node, ast.arg):
        return node.arg
    if not isinstance(node.ctx, ast.Store):
        return None
    return node.attr if isinstance(node, ast.Attribute) else node.id


def is_value(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Whether the definition is read as an attribute, as a property is."""
    names = {ast.unparse(decorator).split(".")[-1] for decorator in node.decorator_list}
    return bool(names & {"property", "cached_property", "setter"})


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
