"""Usage of requests: metered, priced, added up and written to the ledger."""
