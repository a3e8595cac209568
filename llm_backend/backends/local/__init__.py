"""Models of this machine: model manager, chat templates, markup and media.

local_model.py          one model: chats, completions, embeddings, ranking
chat_rendering.py       chats as prompts
model_protocol.py       its template, markup and control tokens: prompts and parsers
admitted_generation.py  a generation that has got a slot of the engine; its deltas and usage
chat_choice.py          deltas of one choice as reasoning, content and calls
engine_commands.py, engine_errors.py, task_priority.py  commands to the engine and its errors
request_parts.py        parts of a request, computed one after the other by an engine
model_handle.py         the interfaces `ModelManager` and `ModelHandle` (one model of a manager)
model_manager.py        `LocalModelManager`: loads models on demand, within a memory budget
local_handle.py         handle of an engine that this process owns
engine_users.py         reference count of the requests that use an engine, and its idle timer:
                        unloads it `idle_unload_s` after the last one (keep-alive, TTL)
shared_manager/         `ModelManagerServer` and `ModelManagerClient`: several processes
chat_template.py        the model's Jinja template, in a sandbox
template_messages.py    messages in the form that a template expects
chat_formats.py         templates by name, for files without one
control_tokens.py       escapes control tokens in user text
grammar_field.py        the request's field that a grammar was made of, for errors
markup/                 tool calls and reasoning in each family's markup
media/                  images and audio in messages
token_files.py          vocabulary files of OpenAI's encodings
yes_no.py               classifier by a yes/no question
label_scoring.py        probabilities of labels as answers to questions
image_setup.py          files, steps and parameters of a model that draws
"""
