"""Operations of the official Python SDK that the document lacks, as facts: `openapi/sdk.yaml`.

calls.py       HTTP calls of the SDK's resource methods, read from their source
schemas.py     types of the SDK as JSON Schema
operations.py  calls as operations of OpenAPI
events.py      events of streams, WebSockets and webhooks
sdk_facts.py   the file: what the document lacks, under names that it does not use
"""
