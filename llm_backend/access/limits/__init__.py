"""Permissions, rate and concurrency limits of metered requests and sessions, and the requests' fair
queue.

admission_control.py  all checks of a request, in their order
request_policy.py     limits and permissions of a caller with a model
permission.py         models, tools, storage and spending that a project is allowed
rate_limits.py        requests a minute or day, tokens a minute, granted in blocks
limit_headers.py      OpenAI's headers of rate limits
rate_window.py        the fixed window of one rate limit
reservation.py        one request's share of its rate limits
concurrency.py        concurrent requests, by key or project
metered_response.py   an answer with its rate limit headers, and its usage
websocket_session.py  limits and usage of a WebSocket, and later checks of its key
"""
