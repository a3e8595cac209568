"""Upstreams: other servers that answer requests; load balancing, health, retries and permits."""
