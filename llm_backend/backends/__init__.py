"""Backends, which answer requests for models: engines of this machine, and upstreams.

base.py             interface of a backend, and the values that it takes and returns
registry.py         names of models and routes, each with its backend
local/              local models: templates, markup, media, model manager
schemas/            JSON schemas of answers, lowered for grammars
upstream/           other servers: HTTP client, pool, health, permits
mcp_server.py       client of MCP servers
web_files.py        files fetched from allowed hosts
data_url.py         data: URLs
images/             images drawn by local models and by image servers
recordings/         recordings of clients as samples
speech/             texts read aloud
speech_detector.py  where speech begins and ends
transcription/      recordings as text
webhook_sender.py   events sent to webhook endpoints
public_session.py   HTTP sessions that connect to public addresses only
"""
