import json
import subprocess
import sys
import time

import pytest

from llm_backend.engine.messages import GrammarLimits
from llm_backend.engine.sampling.grammar_limits import GrammarError, check_grammar

UNUSED = """
import sys
import llm_backend.engine.process.worker
sys.exit("llguidance" in sys.modules)
"""
LIMITS = GrammarLimits(
    literals=4, literal=20, intersections=2, nesting=6, properties=3, choices=3, multiple=100
)


def schema(value: object) -> str:
    return f"start: %json {json.dumps(value)} | OTHER\nOTHER: /x/"


@pytest.mark.parametrize(
    "grammar",
    [
        'start: "a" | /b/ | "c" | "d"',
        '// "a" "a" "a" "a" "a" "a"\nstart: "a"  # & & & & &',
        'start: "a & b & c & d & e"',
        "start: A\nA: /a/ & /b/ & /c/",
        schema({"properties": {"a": {}, "b": {}, "c": {}}}),
        schema({"enum": [1, 2, 3]}),
        schema({"const": "a text that is longer than an expression may be"}),
        schema({"multipleOf": 0.25}),
        schema({"multipleOf": 5000}),
        schema({"multipleOf": True}),  # which is no number: the native code says so
        schema({"multipleOf": 10**400}),
        schema({"properties": {name: {"pattern": name} for name in "abc"}}),
        schema({"allOf": [{"pattern": "a"}, {"pattern": "b"}]}),
        schema(True),
    ],
)
def test_grammar_within_limits_passes(grammar):
    check_grammar(grammar, LIMITS)


@pytest.mark.parametrize(
    ("grammar", "complaint"),
    [
        ('start: "a" "b" "c" "d" "e"', "the number of expressions may be 4 at most, not 5"),
        ('start: "' + "a" * 20 + '"', "an expression's characters may be 20 at most, not 22"),
        ("start: A\nA: /a/ & /b/ & /c/ & /d/", "the number of `&`"),
        (schema({"properties": dict.fromkeys("abcd", True)}), "a schema's properties"),
        (schema({"items": {"enum": [1, 2, 3, 4]}}), "a schema's enum values"),
        (schema({"items": {"pattern": "a" * 21}}), "a pattern's characters"),
        (schema({"patternProperties": {"a" * 21: {}}}), "a pattern's characters"),
        (schema({"multipleOf": 101}), "multipleOf"),
        (schema({"multipleOf": 10**400 + 1}), "multipleOf"),
        (schema({"allOf": [{"multipleOf": 11}, {"multipleOf": 13}]}), "multipleOf"),
        (schema({"const": [[[[[[{"b": 1}]]]]]]}), "nesting"),
        (schema({"allOf": [{"pattern": one} for one in "abc"]}), "patterns under `allOf`"),
        (schema({"items": {"$ref": "#/a", "pattern": "a"}, "b": {"patternProperties": {"b": 1,
            "c": 1}}}), "patterns under `allOf`"),
        (schema({"const": [[-(2**63)]]}), "greater than -2"),
        (schema({"minimum": -1e30}), "greater than -2"),
        ("start: %json {", "without JSON"),
        ("start: %json " + "[" * 100_000, "without JSON"),
    ],
)  # fmt: skip
def test_grammar_beyond_limits_is_refused(grammar, complaint):
    with pytest.raises(GrammarError, match=complaint.replace("(", r"\(")):
        check_grammar(grammar, LIMITS)


@pytest.mark.parametrize("grammar", ['"' + r"\"" * 50_000, "/" + r"\/" * 50_000])
def test_unterminated_literals_are_scanned_in_linear_time(grammar):
    began_s = time.process_time()
    check_grammar(grammar, LIMITS)

    assert time.process_time() - began_s < 1  # a minute, from every place anew


def test_worker_without_grammars_does_not_import_llguidance():
    subprocess.run([sys.executable, "-c", UNUSED], check=True)
