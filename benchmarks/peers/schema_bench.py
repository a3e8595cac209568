"""Schemas that structured output accepts, and instances of them that it would send.

    git clone https://github.com/guidance-ai/jsonschemabench
    python -m benchmarks.peers.schema_bench jsonschemabench/data
    python -m benchmarks.peers.schema_bench jsonschemabench/maskbench/data
    git clone https://github.com/json-schema-org/JSON-Schema-Test-Suite
    python -m benchmarks.peers.schema_bench JSON-Schema-Test-Suite/tests/draft2020-12

Every schema is lowered, compiled and held as a request's would be, with the default limits and a
vocabulary of single bytes. `by grammar` are the schemas that the grammar expresses whole; answers
by the others are validated at the end. Where a file has instances (MaskBench, the official test
suite), an invalid one that would be sent as an answer fails the run. A valid one that the grammar
refuses counts as `not generated`: a grammar has one order of properties. `random` answers are
sampled from the grammar alone.
"""

import argparse
import json
import multiprocessing
import random
import re
import statistics
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypedDict

from rich.console import Console
from rich.progress import track
from rich.table import Table

from llm_backend.backends.schemas import AnswerSchema, SchemaBudget, SchemaLimits, lower_schema
from llm_backend.engine.messages import GrammarLimits
from llm_backend.engine.sampling.constraint import CompiledGrammar, Grammars
from llm_backend.engine.sampling.grammar_limits import GrammarError
from llm_backend.errors import InvalidRequest
from llm_backend.json_types import JsonValue

END = 256
ANSWER_BYTES = 2000  # a longer random answer is given up
SENT_INVALID = "invalid, SENT"
STREAMED_INVALID = "random, invalid, STREAMED"
CLOSING = frozenset(b'"}],:')


class ByteVocabulary:
    """Vocabulary of the 256 bytes and an end token."""

    size = END + 1
    end_tokens = markers = frozenset({END})

    def token_bytes(self, token: int) -> bytes:
        """Returns the bytes of a token."""
        return bytes([token]) if token < END else b"<end>"

    def tokenize(self, text: str, *, parse_special: bool) -> list[int]:
        """Returns a text's bytes."""
        return list(text.encode())


# A compiler reads no more of a vocabulary than `ByteVocabulary` has.
GRAMMARS = Grammars(ByteVocabulary(), GrammarLimits())  # type: ignore[arg-type]


class Instance(TypedDict):
    """Instance of a schema."""

    data: JsonValue
    valid: bool


@dataclass(kw_only=True)
class Result:
    """Result of one schema; `counts` are of its instances and random answers."""

    group: str
    seconds: float = 0.0
    refusal: str | None = None
    needs_no_validation: bool = False
    counts: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)


def run(job: tuple[Path, int]) -> list[Result]:
    """Tries the schemas of a file."""
    path, answers = job
    content = json.loads(path.read_text())
    group = path.name.partition("---")[0] if "---" in path.name else path.parent.name
    cases = [content] if isinstance(content, dict) else content
    if any(not isinstance(case, dict) or not {"schema", "tests"} <= case.keys() for case in cases):
        cases = [{"schema": content, "tests": []}]
    return [run_case(path, group, case["schema"], case["tests"], answers) for case in cases]


def run_case(
    path: Path, group: str, schema: JsonValue, instances: list[Instance], answers: int
) -> Result:
    """Compiles one schema, then tries its instances and so many random answers."""
    result = Result(group=group)
    begun = time.perf_counter()
    try:
        answer_schema, grammar, result.needs_no_validation = compile_schema(schema)
    except (InvalidRequest, GrammarError) as error:
        result.refusal = str(error)
        return result
    finally:
        result.seconds = time.perf_counter() - begun
    for instance in instances:
        text = json.dumps(instance["data"], ensure_ascii=False, separators=(",", ":"))
        kind = outcome(text, instance["valid"], answer_schema, grammar, result)
        result.counts[kind] += 1
        if kind == SENT_INVALID:
            result.failures.append(f"{path}: {text}")
    dice = random.Random(path.name)
    for _ in range(answers):
        answer = random_answer(grammar, dice)
        if answer is None:
            result.counts["random, not finished"] += 1
        elif not answer_schema.rejects(answer, needs_no_validation=result.needs_no_validation):
            result.counts["random, valid"] += 1
        elif result.needs_no_validation:
            result.counts[STREAMED_INVALID] += 1
            result.failures.append(f"{path}: {answer}")
        else:
            result.counts["random, invalid, held back"] += 1
    return result


def compile_schema(schema: JsonValue) -> tuple[AnswerSchema, CompiledGrammar, bool]:
    """Returns the schema for the validation at the end, the grammar, and True if the grammar
    expresses the whole schema."""
    budget = SchemaBudget(SchemaLimits())
    budget.spend(schema, ())
    answer_schema = AnswerSchema(schema, ())
    lowered = lower_schema(schema, (), budget=budget)
    if not lowered.needs_no_validation:
        answer_schema = AnswerSchema(schema, (), has_formats=True)
    compact = {"x-guidance": {"whitespace_flexible": False}}
    content = json.dumps(dict(lowered.schema) | compact)
    grammar = GRAMMARS.compile(f"start: %json {content}").result()
    return answer_schema, grammar, lowered.needs_no_validation


def outcome(
    text: str, is_valid: bool, schema: AnswerSchema, grammar: CompiledGrammar, result: Result
) -> str:
    """Returns what happens to an instance as an answer."""
    try:
        is_generated = follows(text.encode(), grammar)
    except GrammarError:
        return "work limit"
    is_sent = is_generated and not schema.rejects(
        text, needs_no_validation=result.needs_no_validation
    )
    if is_valid:
        return "valid, sent" if is_sent else "valid, not generated"
    return SENT_INVALID if is_sent else "invalid, held back"


def follows(answer: bytes, grammar: CompiledGrammar) -> bool:
    """Returns True if the grammar can generate exactly this answer."""
    constraint = grammar.constraint()
    for byte in answer:
        if not constraint.mask()[byte]:
            return False
        constraint.accept(byte)
    return constraint.is_complete or bool(constraint.mask()[END])


def random_answer(grammar: CompiledGrammar, dice: random.Random) -> str | None:
    """Returns a random answer by the grammar, ended early; None if it becomes too long, or its next
    token takes too much work."""
    constraint = grammar.constraint()
    answer = b""
    try:
        while len(answer) < ANSWER_BYTES:
            (allowed,) = constraint.mask().nonzero()
            closing = [token for token in allowed if token in CLOSING]
            token = int(dice.choice(closing if closing and dice.random() < 0.6 else allowed))
            if token != END:
                answer += bytes([token])
                constraint.accept(token)
            if token == END or constraint.is_complete:
                return answer.decode()
    except GrammarError:
        return None
    return None


def report(results: Sequence[Result]) -> None:
    """Prints a row for each folder of schemas, then the reasons of refusals and the outcomes."""
    table = Table("folder", "schemas", "accepted", "by grammar", "compile p50 / p99 / max, ms")
    groups = sorted({result.group for result in results})
    for name, members in [
        *((group, [one for one in results if one.group == group]) for group in groups),
        ("all", results),
    ]:
        accepted = [one for one in members if one.refusal is None]
        times = statistics.quantiles([one.seconds * 1000 for one in members] * 2, n=100)
        whole = sum(one.needs_no_validation for one in accepted)
        table.add_row(
            name,
            f"{len(members):,}",
            f"{len(accepted) / len(members):.1%}",
            f"{whole / len(members):.1%}",
            f"{times[49]:.1f} / {times[98]:.0f} / {max(one.seconds for one in members) * 1000:.0f}",
        )
    Console(width=110).print(table)
    for reason, count in Counter(
        shape(one.refusal) for one in results if one.refusal
    ).most_common():
        print(f"{count:6} refused: {reason}")
    counts: Counter[str] = sum((one.counts for one in results), Counter())
    for kind, count in sorted(counts.items()):
        print(f"{count:6} {kind}")


def shape(refusal: str) -> str:
    """Returns a refusal without what differs from schema to schema."""
    return re.sub(r"`[^`]*`|\d+", "_", refusal)[:100]


def main() -> int:
    """Reads the command line, runs every file, reports; 1 if an invalid answer would be sent."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--answers", type=int, default=3, help="random answers of each schema")
    parser.add_argument("--every", type=int, default=1, help="take one file of every N")
    arguments = parser.parse_args()
    paths = sorted(arguments.folder.rglob("*.json"))[:: arguments.every]
    jobs = [(path, arguments.answers) for path in paths]
    with multiprocessing.Pool() as pool:
        done = pool.imap_unordered(run, jobs, chunksize=8)
        results = [one for some in track(done, "files", total=len(jobs)) for one in some]
    report(results)
    failures = [failure for one in results for failure in one.failures]
    print("\n".join(failures))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
