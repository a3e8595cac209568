"""The database: connections, group commit, schema, and what differs between dialects."""
