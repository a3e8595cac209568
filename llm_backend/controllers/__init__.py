"""Controllers: the functions that answer the document's operations, by tag.

A function has the name of its operationId. `services/`, `generation/`, `rendering/`, `relay/`,
`response_items/` and `write_behind/` are shared by several tags.

completions.py    text completions
conversations.py  conversations and their items
embeddings.py     embeddings
rerank.py         reranking
tokens.py         tokenize, detokenize, render a prompt
uploads.py        files in parts
chat/             chat completions
messages/         Anthropic's Messages
responses/        responses
vector_stores/    vector stores
files/            files
batches/          batches
models/           models
moderations/      moderations
administration/   organization and projects
monitoring/       health, metrics, status
websockets/       WebSocket endpoints
services/         objects of the server that operations share
generation/       bodies as generation requests
rendering/        deltas as chunks, events and lists
relay/            answers of upstreams
response_items/   items of responses and conversations
write_behind/     writes of several answers in one transaction
internal_requests.py  requests to the own application
audio/            speech, voices, transcription
images/           images of local models and image servers
decisions/        questions answered by probabilities
mcp/              the MCP server at `/mcp`
ollama/           Ollama's API
realtime/         realtime sessions
webhooks/         endpoints of webhooks, and deliveries
"""
