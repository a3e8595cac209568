"""Build of the contract: from OpenAI's published document to the files that the server loads.

builder.py      OpenAI's document without its prose, as `openapi/openapi.yaml`
overlay.py      OpenAPI Overlay: departures from the document, as actions
compiler.py     `openapi/` to the compiled JSON files
summaries.py    summaries, tags and ids of operations that have none
fingerprint.py  digest of the sources, which shows that compiled files are out of date
"""
