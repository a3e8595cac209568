"""Upstreams: other servers that answer requests; load balancing, health, retries and permits.

http/                the HTTP client
permits/             concurrency limits shared by processes
config.py            settings of one upstream
pool.py              routing, balancing, retries
upstream_routing.py  the upstreams that may answer a request
upstream_request.py  a request before its upstream is chosen
attempts.py          the tries of one request, and whether one more follows
retry_rules.py       statuses and pauses of retries
balance.py           the least loaded upstream
upstream_state.py    outstanding requests and permits of an upstream
upstream_health.py   its failures, and its ejection
idle_probe.py        probe of an ejected upstream that gets no request
observer.py          callbacks for metrics
model_list.py        cached model list
upstream_answer.py   an answer while its body arrives
headers.py           headers of relayed requests and answers
content_coding.py    gzip and deflate of answers that are also parsed
passed_headers.py    headers that may pass
body_rewriting.py    one value of a JSON body replaced, such as an alias by the model's name
answer_kinds.py      JSON or events, by the document
upstream_errors.py   other servers' error bodies
azure.py             Azure's URLs
websockets.py        interface of a WebSocket relay; key and model of its handshake
"""
