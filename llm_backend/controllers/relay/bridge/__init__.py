"""Bridges: chats for upstreams that support only responses, and the reverse."""
