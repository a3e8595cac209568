"""Backends, which answer models: engines of this machine, and upstreams.

base.py             interface of a backend, and the values that it takes and returns
registry.py         names of models and routes, each with its backend
local/              local models: templates, markup, media, model manager
schemas/            JSON schemas of answers, lowered for grammars
upstream/           other servers: HTTP client, pool, health, permits
mcp_server.py       client of MCP servers
web_files.py        files fetched from allowed hosts
data_url.py         data: URLs
picture_models.py   models that draw, of this machine and of image servers
local_drawings.py   pictures drawn by local models
image_servers.py    image servers: requests, previews, interruptions
sdapi.py            their wire format, `/sdapi/v1`
drawing.py          pictures that a request asks for, and those that it gets
picture_files.py    sources, masks and formats of pictures that are drawn
speech/             texts read aloud
speech_detector.py  where speech begins and ends
transcription/      recordings as text
webhook_sender.py   events sent to webhook endpoints
public_session.py   HTTP sessions that connect to public addresses only
"""
