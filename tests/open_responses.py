"""The Open Responses specification (openresponses.org, 2026-04-24, with the file search of its
earlier text), as far as answers go: what a response, its items and its events must have.

Written by its text: names, types and what is required. Further fields are allowed everywhere.
"""

from collections.abc import Iterable, Mapping

import jsonschema_rs

from llm_backend.json_types import JsonObject

__all__ = ["check_compaction", "check_event", "check_response"]


TEXT, WHOLE, NUMBER, FLAG = ({"type": kind} for kind in ("string", "integer", "number", "boolean"))
NULL: JsonObject = {"type": "null"}
STATUS = {"enum": ["in_progress", "completed", "incomplete"]}


def maybe(schema: JsonObject) -> JsonObject:
    return {"anyOf": [schema, NULL]}


def listed(schema: JsonObject) -> JsonObject:
    return {"type": "array", "items": schema}


def ref(name: str) -> JsonObject:
    return {"$ref": f"#/$defs/{name}"}


def having(optional: Mapping[str, JsonObject] = {}, /, **required: JsonObject) -> JsonObject:
    return {
        "type": "object",
        "required": list(required),
        "properties": {**required, **optional},
    }


def typed(
    kind: str, optional: Mapping[str, JsonObject] = {}, /, **required: JsonObject
) -> JsonObject:
    return having(optional, type={"const": kind}, **required)


def one_of(*kinds: JsonObject) -> JsonObject:
    """One of these by its `type`."""
    return {"anyOf": list(kinds)}


TOP_LOGPROB = having(token=TEXT, logprob=NUMBER, bytes=listed(WHOLE))
LOGPROB = having(
    token=TEXT, logprob=NUMBER, bytes=listed(WHOLE), top_logprobs=listed(TOP_LOGPROB)
)  # fmt: skip
ANNOTATION = one_of(
    typed("url_citation", url=TEXT, start_index=WHOLE, end_index=WHOLE, title=TEXT),
    typed("file_citation", file_id=TEXT, index=WHOLE, filename=TEXT),
)
OUTPUT_TEXT = typed(
    "output_text", {"logprobs": listed(LOGPROB)}, text=TEXT, annotations=listed(ANNOTATION)
)
SUMMARY_TEXT, REASONING_TEXT = typed("summary_text", text=TEXT), typed("reasoning_text", text=TEXT)
PART = one_of(
    typed("input_text", text=TEXT),
    OUTPUT_TEXT,
    typed("text", text=TEXT),
    SUMMARY_TEXT,
    REASONING_TEXT,
    typed("refusal", refusal=TEXT),
    typed("input_image", image_url=maybe(TEXT), detail={"enum": ["low", "high", "auto"]}),
    typed("input_file", {"filename": TEXT, "file_url": TEXT}),
)
FOUND = having(
    file_id=TEXT, filename=TEXT, text=TEXT, attributes={}, score=maybe(NUMBER),
    vector_store_id=maybe(TEXT),
)  # fmt: skip
ITEM = one_of(
    typed("message", id=TEXT, status=STATUS, content=listed(PART),
          role={"enum": ["user", "assistant", "system", "developer"]}),
    typed("function_call", id=TEXT, call_id=TEXT, name=TEXT, arguments=TEXT, status=STATUS),
    typed("function_call_output", id=TEXT, call_id=TEXT, status=STATUS,
          output=one_of(TEXT, listed(PART))),
    typed("reasoning", {"content": listed(PART), "encrypted_content": TEXT}, id=TEXT,
          summary=listed(PART)),
    typed("compaction", {"created_by": TEXT}, id=TEXT, encrypted_content=TEXT),
    typed("file_search_call", id=TEXT, status=TEXT, queries=listed(TEXT),
          results=maybe(listed(FOUND))),
)  # fmt: skip
RANKING = having(
    {"hybrid_search": having(embedding_weight=NUMBER, text_weight=NUMBER)},
    ranker={"enum": ["auto", "default-2024-11-15"]}, score_threshold=NUMBER,
)  # fmt: skip
TOOL = one_of(
    typed("function", name=TEXT, description=maybe(TEXT), parameters=maybe({"type": "object"}),
          strict=maybe(FLAG)),
    typed("file_search", vector_store_ids=listed(TEXT), max_num_results=WHOLE,
          ranking_options=RANKING, filters=maybe({"type": "object"})),
)  # fmt: skip
MODE = {"enum": ["none", "auto", "required"]}
FUNCTION_CHOICE = typed("function", {"name": TEXT})
TOOL_CHOICE = one_of(
    MODE, FUNCTION_CHOICE, typed("file_search"),
    typed("allowed_tools", tools=listed(FUNCTION_CHOICE), mode=MODE),
)  # fmt: skip
FORMAT = one_of(
    typed("text"),
    typed("json_object"),
    typed("json_schema", name=TEXT, description=maybe(TEXT), schema=maybe({"type": "object"}),
          strict=FLAG),
)  # fmt: skip
USAGE = having(
    input_tokens=WHOLE, output_tokens=WHOLE, total_tokens=WHOLE,
    input_tokens_details=having(cached_tokens=WHOLE),
    output_tokens_details=having(reasoning_tokens=WHOLE),
)  # fmt: skip
EFFORT = {"enum": ["none", "minimal", "low", "medium", "high", "xhigh"]}
RESPONSE = having(
    id=TEXT, object={"const": "response"}, created_at=WHOLE, completed_at=maybe(WHOLE),
    status=TEXT, incomplete_details=maybe(having(reason=TEXT)), model=TEXT,
    previous_response_id=maybe(TEXT), instructions=maybe(TEXT), output=listed(ref("item")),
    error=maybe(having(code=TEXT, message=TEXT)), tools=listed(TOOL), tool_choice=TOOL_CHOICE,
    truncation={"enum": ["auto", "disabled"]}, parallel_tool_calls=FLAG,
    text=having({"verbosity": {"enum": ["low", "medium", "high"]}}, format=FORMAT),
    top_p=NUMBER, presence_penalty=NUMBER, frequency_penalty=NUMBER, top_logprobs=WHOLE,
    temperature=NUMBER,
    reasoning=maybe(having(effort=maybe(EFFORT),
                           summary=maybe({"enum": ["concise", "detailed", "auto"]}))),
    usage=maybe(USAGE), max_output_tokens=maybe(WHOLE), max_tool_calls=maybe(WHOLE), store=FLAG,
    background=FLAG, service_tier=TEXT, metadata={}, safety_identifier=maybe(TEXT),
    prompt_cache_key=maybe(TEXT),
)  # fmt: skip
COMPACTION = having(
    id=TEXT, object={"const": "response.compaction"}, output=listed(ref("item")),
    created_at=WHOLE, usage=USAGE,
)  # fmt: skip
IN_ITEM: JsonObject = {"item_id": TEXT, "output_index": WHOLE}
IN_PART: JsonObject = {**IN_ITEM, "content_index": WHOLE}
IN_SUMMARY: JsonObject = {**IN_ITEM, "summary_index": WHOLE}
ITEM_EVENT: JsonObject = {"output_index": WHOLE, "item": maybe(ref("item"))}
EVENTS: Mapping[str, JsonObject] = {
    **{
        kind: {"response": ref("response")}
        for kind in ("created", "queued", "in_progress", "completed", "failed", "incomplete")
    },
    "output_item.added": ITEM_EVENT,
    "output_item.done": ITEM_EVENT,
    "content_part.added": {**IN_PART, "part": PART},
    "content_part.done": {**IN_PART, "part": PART},
    "output_text.delta": {**IN_PART, "delta": TEXT},
    "output_text.done": {**IN_PART, "text": TEXT},
    "output_text.annotation.added": {
        **IN_PART, "annotation_index": WHOLE, "annotation": maybe(ANNOTATION),
    },
    "refusal.delta": {**IN_PART, "delta": TEXT},
    "refusal.done": {**IN_PART, "refusal": TEXT},
    "reasoning_summary_part.added": {**IN_SUMMARY, "part": PART},
    "reasoning_summary_part.done": {**IN_SUMMARY, "part": PART},
    "reasoning_summary_text.delta": {**IN_SUMMARY, "delta": TEXT},
    "reasoning_summary_text.done": {**IN_SUMMARY, "text": TEXT},
    "function_call_arguments.delta": {**IN_ITEM, "delta": TEXT},
    "function_call_arguments.done": {**IN_ITEM, "arguments": TEXT},
    **dict.fromkeys(
        [f"file_search_call.{step}" for step in ("in_progress", "searching", "completed")], IN_ITEM
    ),
}  # fmt: skip
_LOGPROBS = ("output_text.delta", "output_text.done")
_DEFS = {"item": ITEM, "response": RESPONSE}


def _validator(schema: JsonObject) -> jsonschema_rs.Validator:
    return jsonschema_rs.validator_for({**schema, "$defs": _DEFS})


_EVENTS = {
    f"response.{kind}": _validator(
        typed(
            f"response.{kind}",
            {"logprobs": listed(LOGPROB)} if kind in _LOGPROBS else {},
            sequence_number=WHOLE,
            **fields,
        )
    )
    for kind, fields in EVENTS.items()
}
_RESPONSE, _COMPACTION = _validator(RESPONSE), _validator(COMPACTION)


def check_response(response: JsonObject) -> None:
    """Asserts that it has what a response must have."""
    _assert_none(_RESPONSE.iter_errors(response))


def check_compaction(compaction: JsonObject) -> None:
    """Asserts that it has what a compacted conversation must have."""
    _assert_none(_COMPACTION.iter_errors(compaction))


def check_event(event: JsonObject) -> None:
    """Asserts that it has what an event of its type must have; the specification knows the type."""
    assert event["type"] in _EVENTS, event["type"]
    _assert_none(_EVENTS[event["type"]].iter_errors(event))


def _assert_none(errors: Iterable[jsonschema_rs.ValidationError]) -> None:
    found = [f"{'.'.join(map(str, error.instance_path))}: {error.message}" for error in errors]
    assert not found, "\n".join(found)
