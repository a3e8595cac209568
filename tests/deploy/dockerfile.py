"""Reads a Dockerfile into stages of instructions, as far as ours goes: without heredocs."""

import json
import re
import shlex
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from string import Template

__all__ = ["Instruction", "Stage", "is_sent", "stages"]


@dataclass(frozen=True, kw_only=True)
class Instruction:
    """One instruction: its name in capitals, its flags, and what follows them."""

    name: str
    flags: dict[str, str]
    text: str

    @property
    def words(self) -> list[str]:
        """The arguments, of the JSON form and of the shell form alike."""
        return json.loads(self.text) if self.text.startswith("[") else shlex.split(self.text)

    @property
    def inner(self) -> "Instruction":
        """The instruction that this one holds: `HEALTHCHECK ... CMD [...]`."""
        return _instruction(self.text)


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One FROM, and the stage it builds on where that is not an image."""

    name: str
    image: str
    parent: "Stage | None"
    instructions: list[Instruction] = field(default_factory=list)

    def all(self, name: str) -> list[Instruction]:
        """Every instruction of that name, those of the parent first."""
        inherited = self.parent.all(name) if self.parent else []
        return inherited + [one for one in self.instructions if one.name == name]

    def last(self, name: str) -> Instruction:
        """The instruction of that name that holds."""
        return self.all(name)[-1]


def stages(path: Path) -> dict[str, Stage]:
    """The stages by name, in the order they are written."""
    found: dict[str, Stage] = {}
    arguments: dict[str, str] = {}  # those before the first stage, which name images
    for instruction in _instructions(path.read_text(encoding="utf-8")):
        if instruction.name == "ARG" and not found:
            name, _, default = instruction.text.partition("=")
            arguments[name] = default
        elif instruction.name == "FROM":
            image, _, name = Template(instruction.text).substitute(arguments).split()
            stage = Stage(name=name, image=image, parent=found.get(image))
            found[name] = stage
        else:
            stage.instructions.append(instruction)
    return found


def is_sent(path: str, dockerignore: str) -> bool:
    """True if `path` is sent to the builder: the last pattern for it or a parent decides."""
    sent = True
    for line in dockerignore.splitlines():
        pattern = line.strip()
        if pattern and not pattern.startswith("#") and _matches(path, pattern.removeprefix("!")):
            sent = pattern.startswith("!")
    return sent


def _instructions(text: str) -> list[Instruction]:
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n", "", "\n".join(lines))
    return [_instruction(line) for line in joined.splitlines() if line.strip()]


def _instruction(line: str) -> Instruction:
    name, _, rest = line.strip().partition(" ")
    flags = {}
    while match := re.match(r"--([a-z-]+)=(\S+)\s+", rest):
        flags[match[1]] = match[2]
        rest = rest[match.end() :]
    return Instruction(name=name.upper(), flags=flags, text=rest.strip())


def _matches(path: str, pattern: str) -> bool:
    parts = path.rstrip("/").split("/")
    heads = ["/".join(parts[: end + 1]) for end in range(len(parts))]
    if pattern.startswith("**/"):
        return any(fnmatch(part, pattern[3:]) for part in parts)
    depth = pattern.count("/")
    return any(fnmatch(head, pattern) for head in heads if head.count("/") == depth)
