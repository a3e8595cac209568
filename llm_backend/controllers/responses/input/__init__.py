"""Input of responses: items, files, images, prompts and tools as a chat request.

`resolved_request.py`    the whole body, resolved
`chat_request.py`        body and fields of the chat
`items.py`               items: sent, stored and public form, and messages
`input_parts.py`         file and image parts
`file_texts.py`          text of files
`file_pictures.py`       images as data: URLs
`prompts.py`             prompt templates
`tools.py`               `tools` and `tool_choice`
`client_tools.py`        functions and custom tools of the client
`truncation.py`          drops the oldest items
`context_management.py`  compacts a long conversation
`compaction_items.py`    items with a summary
`encrypted_content.py`   opaque content of items
`conversation_id.py`     the conversation that is continued
`unsupported_fields.py`  refusal of fields
`listed_items.py`        items in the form of lists
"""
