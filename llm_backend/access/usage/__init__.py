"""Usage of requests: metered, priced, added up and written to the ledger.

meter.py               usage of one request
metered_operations.py  operations that are metered, and their units
exempt_operations.py   operations that are not, with reasons
estimate.py            estimated tokens of a request
usage_parser.py        usage in upstreams' answers
deferred_usage.py      usage that upstreams report later
ledger.py              usage added up and written
prices.py              costs of usage
spending.py            spending of the month, and its limits
"""
