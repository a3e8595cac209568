"""Stream events of responses, and the response object built from them.

response_state.py  state machine from deltas to events
output_items.py    builders of output items
event_log.py       buffer of events that are stored
"""
