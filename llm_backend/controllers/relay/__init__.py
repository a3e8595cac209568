"""Operations answered by upstreams: routed, relayed byte for byte, observed.

routing.py                 targets of a route by the model, with fallback (failover)
relay.py                   one request to an upstream
relayed_response.py        the upstream's answer to the client
relayed_chat.py            chats, observed and stored
answer_observer.py         a relayed answer's bytes: a stream or a body
chat_observer.py           parser of a relayed chat's bytes
local_or_upstream.py       stored objects: local, or of an upstream
relay_disconnect.py        disconnects of clients, also while they upload a body
bridge/                    chats for upstreams with responses only, and the reverse
"""
