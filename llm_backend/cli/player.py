"""Audio players of the system: `llm-backend chat` plays answers that are read aloud by one."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

PLAYERS = (
    ("paplay",),
    ("aplay", "--quiet"),
    ("ffplay", "-nodisp", "-autoexit", "-loglevel", "error"),
    ("afplay",),
)


def play(audio: bytes) -> Path | None:
    """Play a WAV file by the first player that can; an interrupt ends it. Return None if it was
    played; otherwise keep the file and return its path."""
    handle, name = tempfile.mkstemp(prefix="llm-backend-", suffix=".wav")
    with os.fdopen(handle, "wb") as file:
        file.write(audio)
    if not any(_is_played(name, *player) for player in PLAYERS):
        return Path(name)
    Path(name).unlink()
    return None


def _is_played(file: str, program: str, *flags: str) -> bool:
    path = shutil.which(program)
    if path is None:
        return False
    try:
        done = subprocess.run([path, *flags, file], capture_output=True, check=False)
    except KeyboardInterrupt:
        return True
    return done.returncode == 0
