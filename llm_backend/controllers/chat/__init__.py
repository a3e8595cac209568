"""Chat completions: created, streamed, stored and listed."""
