"""The worker process and the API process's side of it: start, supervision, connections."""
