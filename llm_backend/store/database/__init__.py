"""The database: connections, write queue, schema, and what differs between dialects."""
