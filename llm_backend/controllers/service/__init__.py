"""The server's own operations: health, readiness, metrics, status and recent errors."""
