"""Permissions, rate and concurrency limits of metered requests and sessions, and the requests' fair
queue."""
