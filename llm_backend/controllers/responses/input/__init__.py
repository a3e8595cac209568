"""Input of responses: items, prompts and tools as a chat request.

resolved_request.py    the whole body, resolved
chat_request.py        body and fields of the chat
call_outputs.py        outputs of calls behind their calls
prompts.py             prompt templates
tools.py               `tools` and `tool_choice`
truncation.py          drops the oldest items
context_management.py  compacts a long conversation
response_fields.py     refusal of fields
"""
