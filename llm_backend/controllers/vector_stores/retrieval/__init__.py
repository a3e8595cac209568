"""Search in vector stores, and retrieval for models (RAG).

`hybrid_search.py`     dense vectors and sparse words, fused into one ranking
`query_rewriting.py`   a chat model turns questions into search queries
`passages.py`          search results as text for a prompt, and citations
`tool_entry.py`        the `file_search` entry of `tools`
`chat_retrieval.py`    retrieval before a chat is answered
`file_search_tool.py`  server tool of responses
"""
