"""Search in vector stores, and retrieval for models (RAG), which has two paths:

- One search before the model is asked (`chat_retrieval.py`), whose passages become part of the
  prompt: for chats with a `file_search` tool, and for the vector stores configured for a model, in
  chats (`retrieve`) and in responses (`ResolvedRequest.with_retrieval`).
- A server tool (`file_search_tool.py` of `controllers/responses/loop`), whose searches are items of
  the output: for responses with a `file_search` tool. Such a response has no search in the model's
  own stores. The model calls it; the setting `file_search: always` has the server search once
  before the first round as well.

hybrid_search.py     dense vectors and sparse words, fused into one ranking
query_rewriting.py   a chat model turns questions into search queries
passages.py          search results as text for a prompt, and citations
tool_entry.py        the `file_search` entry of `tools`
chat_retrieval.py    retrieval before a chat is answered
"""
