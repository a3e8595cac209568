"""Releases of OpenAI's document: their differences, and the update of the contract to one.

change.py              one difference, its effect on clients and on this server
schema_comparison.py   differences of two schemas, blind to order and to names of components
comparison.py          differences of two documents: operations, parameters, bodies, components
report.py              a list of differences as Markdown or JSON
overlay_repair.py      actions of the overlay that a release makes stale, each with a repair
yaml_edits.py          edits of YAML text that keep its comments and its form
update.py              the update of `openapi/` to a release, in one step
sdk_update.py          the update of `openapi/` to the installed SDK, likewise
"""
