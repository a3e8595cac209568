"""Request bodies as generation requests: messages, tools, sampling and structured output.

request_translation.py   fields of a body as a chat or as prompts
flat_messages.py         messages of the document as messages of backends
tool_choice.py           tools shown to the model, and tools that it may call
tool_call_ids.py         tool calls and their outputs, matched by id
structured_output.py     grammars and schemas of a body
checked_answer.py        validation of answers, and retries
custom_tools.py          custom tools as functions
custom_calls.py          calls of those functions as calls of custom tools
custom_input.py          parser of a custom tool's input
deprecated_functions.py  `functions` and `function_call`
foreign_tokens.py        token ids of OpenAI's encodings
field_aliases.py         names that other servers have for fields
field_paths.py           paths of fields in errors about translated requests
supported_fields.py      refusal of the other fields
truncation.py            long inputs without their oldest part
"""
