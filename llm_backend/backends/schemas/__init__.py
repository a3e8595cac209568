"""JSON Schema for structured output: lowers clients' schemas to those that llguidance compiles, or
rejects them at an unsupported keyword. Pure.

    lowering.py       lower_schema: the whole schema, keyword by keyword
    node.py           one schema within it, and the interface of the lowering
    keywords.py       the keywords and types of JSON Schema
    objects.py, arrays.py, numbers.py, formats.py  keywords of one type of values
    conditions.py     `not`, `if`, `oneOf`, dependencies
    unique_items.py   `uniqueItems`: arrays without repeats
    logic.py          disjointness and negation of schemas
    negated_keywords.py  negations of single keywords
    json_values.py    types and equality of values
    references.py     targets of `$ref`
    budget.py         what compiling the schemas of one request may cost
    answer_schema.py  validation of a finished answer
"""

from llm_backend.backends.schemas.answer_schema import AnswerSchema
from llm_backend.backends.schemas.budget import SchemaBudget, SchemaLimits
from llm_backend.backends.schemas.keywords import Path
from llm_backend.backends.schemas.lowering import LoweredSchema, lower_schema

__all__ = [
    "AnswerSchema",
    "LoweredSchema",
    "Path",
    "SchemaBudget",
    "SchemaLimits",
    "lower_schema",
]
