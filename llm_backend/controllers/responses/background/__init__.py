"""Background responses: queued, answered by a worker, followed by clients."""
