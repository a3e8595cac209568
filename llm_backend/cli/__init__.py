"""The command line: a module for each command, `program.py` puts them together.

The only package that prints. Heavy imports wait inside the commands that need them, so that
`--help` and `operations` answer at once.
"""

from llm_backend.cli.program import app, main

__all__ = ["app", "main"]
