"""Command line: one module for each command; `program.py` joins them.

The only package that prints. Commands import heavy modules themselves, so that `--help` and
`operations` answer quickly.

program.py        the program; its commands have modules: serve.py, chat.py, check.py, keys.py,
                  operations.py, contract.py, db.py, bench.py, systemd.py, models/
setting_flags.py  flags of `serve`, generated from the settings
options.py        options of several commands
check_media.py    checks of models that speak, transcribe and draw
database_settings.py  settings of commands that use the database
api.py            HTTP client of commands
attachments.py    files attached to chat messages
player.py         players of answers that are read aloud
exit.py           exit with an error message
reference.py      the text of `docs/cli.md`
manual.py         the text of the manual page
lists.py          lines of lists, for 80 columns
terminal.py       typed messages and their history
"""

from llm_backend.cli.program import app, main

__all__ = ["app", "main"]
