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

Each answer's tokens are counted in one of these places:

* a local model's: `LocalModel`, as it generates
* a relayed answer's: `limits/admission_control.py`, from the end of its bytes (`UsageTail`)
* a relayed message's: `controllers/messages/relayed.py`, from its events
* a bridged answer's: `BridgedAnswer.__aexit__`
* a relayed WebSocket's: `MeteredSession`, from each event with usage
* background work's of an upstream: `DeferredUsage.charge`, when the upstream reports it
"""
