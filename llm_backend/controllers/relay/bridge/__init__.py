"""Chats for upstreams that know only responses, and responses for those that know only chats."""
