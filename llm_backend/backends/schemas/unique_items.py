"""`uniqueItems`, rewritten for llguidance, which does not know it.

If the items are a choice of few values, the array is lowered to alternatives without repeats. There
is one alternative for each longest sequence of different items, and an array may be any beginning
of it.
"""

from collections.abc import Iterator, Sequence

from llm_backend.backends.schemas.json_values import are_equal
from llm_backend.backends.schemas.keywords import TYPES
from llm_backend.backends.schemas.node import Lowering, Node
from llm_backend.json_types import JsonValue

_VALUES_LIMIT = 16
_CHARACTERS_LIMIT = 1000
_SEQUENCES_LIMIT = 120  # five values in any order
_OTHER_TYPES = [name for name in TYPES if name != "array"]

Place = list[JsonValue]
"""Values that the item at one position of an array may have."""


def alternatives_of_unique_items(
    lowering: Lowering, node: Node, schemas: Sequence[JsonValue], minimum: int, maximum: int | None
) -> JsonValue:
    """Returns a schema of the node's arrays without repeats, of `minimum` to `maximum` items, the
    first ones by these schemas, and all others by the last schema. None if it would be too
    large."""
    places = [lowering.logic.valid_values(one, node.base, _VALUES_LIMIT) for one in schemas]
    known = [place for place in places if place is not None]
    if len(known) < len(places) or len(str(known)) > _CHARACTERS_LIMIT:
        return None
    sequences: list[list[Place]] = []
    for sequence in _longest_sequences(known, [], maximum):
        if len(sequences) == _SEQUENCES_LIMIT:
            return None
        if len(sequence) >= minimum:
            sequences.append(sequence)
    if not sequences or not lowering.budget.spend_alternatives(len(sequences)):
        return None
    arrays = [_array(sequence, minimum) for sequence in sequences]
    return {"anyOf": [*arrays, {"type": _OTHER_TYPES}]}


def _longest_sequences(
    places: Sequence[Place], used: Place, maximum: int | None
) -> Iterator[list[Place]]:
    """Yields the longest sequences that begin with the `used` values and repeat none. The last item
    may be any of several values."""
    unused = [
        value
        for value in places[min(len(used), len(places) - 1)]
        if not any(are_equal(value, one) for one in used)
    ]
    begun = [[value] for value in used]
    if not unused or len(used) == maximum:
        yield begun
    elif len(used) + 1 == maximum:
        yield [*begun, unused]
    else:
        for value in unused:
            yield from _longest_sequences(places, [*used, value], maximum)


def _array(sequence: Sequence[Place], minimum: int) -> JsonValue:
    items = [{"const": values[0]} if len(values) == 1 else {"enum": values} for values in sequence]
    return {"type": "array", "prefixItems": items, "items": False, "minItems": minimum}
