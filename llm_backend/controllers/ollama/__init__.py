"""Ollama's API over the models of this server.

create.py     chats and generations, streamed or whole
chat_body.py  request bodies as those of chat completions
options.py    fields that chats and generations share, above all `options`
lines.py      deltas as the lines of an answer
raw.py        prompts without a chat template
embed.py      embeddings
models.py     version, lists and descriptions of models
pull.py       download of a model, with its progress
request.py    names of models, and the switch of the whole API
"""
