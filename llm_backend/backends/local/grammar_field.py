"""Grammar field: the field of a request that a grammar was made of, for error messages."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from llm_backend.backends.local.markup.grammar import Function
from llm_backend.backends.schemas import LoweredSchema
from llm_backend.contract.validation_messages import field_name

_ARGUMENTS = re.compile(r"call_(\d+)_(?:arguments|(\d+)_value)")
_CONTENT = "json_content"


@dataclass(frozen=True, kw_only=True)
class GrammarField:
    """Field of a request, `name` as the client knows it. `content` is the schema of the answer's
    content; `functions` are those that may be called, in the grammar's order."""

    name: str
    content: LoweredSchema | None = None
    functions: Sequence[Function] = ()

    def param_at(self, location: str | None) -> str | None:
        """Returns the client's field name of a place in the grammar, which is a rule and a JSON
        pointer into the rule's schema."""
        if location is None:
            return self.name
        rule, *steps = location.split("/")
        pointer = [step.replace("~1", "/").replace("~0", "~") for step in steps]
        if rule == _CONTENT and self.content is not None:
            return field_name(self.content.client_path(pointer))
        found = _ARGUMENTS.fullmatch(rule)
        if found is None:
            return self.name
        function = self.functions[int(found[1])]
        if function.lowered is None or function.parameters is None:
            return function.param
        if found[2] is not None:
            name = list(function.parameters["properties"])[int(found[2])]
            pointer = ["properties", name, *pointer]
        return field_name(function.lowered.client_path(pointer))
