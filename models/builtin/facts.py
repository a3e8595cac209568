"""The knowledge of the built-in model: what it answers, and the ways it is asked."""

import random
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from models.builtin.phrasing import Weighted, normalise, parse, recogniser, sample

KNOWLEDGE = Path(__file__).parent / "knowledge"


@dataclass(frozen=True, kw_only=True)
class Fact:
    """One answer, the key words a right answer holds, and the patterns of its questions."""

    id: str
    answer: str
    keys: tuple[str, ...]
    own: tuple[Weighted, ...]  # patterns of this fact alone
    framed: tuple[Weighted, ...]  # its topics and tasks within the common frames
    is_plain: bool  # small talk that no politeness precedes

    @property
    def patterns(self) -> tuple[Weighted, ...]:
        return self.own + self.framed

    def question(self, rng: random.Random) -> str:
        """One clean phrasing; rich patterns come more often than poor ones."""
        is_own = rng.random() < 0.5
        patterns = (self.own if is_own else self.framed) or self.patterns
        weights = [pattern.sentences**0.4 for pattern in patterns]
        return sample(rng.choices(patterns, weights)[0], rng)


@dataclass(frozen=True)
class Knowledge:
    """Every fact, and what people put before and behind a question."""

    facts: tuple[Fact, ...]
    prefixes: tuple[str, ...]
    suffixes: tuple[str, ...]

    def contains(self, question: str) -> bool:
        """True if the generator could make this phrasing, except for case, marks and politeness."""
        return self._recogniser.fullmatch(normalise(question)) is not None

    @cached_property
    def _recogniser(self) -> re.Pattern[str]:
        core = "|".join(recogniser(pattern) for fact in self.facts for pattern in fact.patterns)
        before = "|".join(map(normalise, self.prefixes))
        behind = "|".join(map(normalise, self.suffixes))
        return re.compile(f" *(?:(?:{before}) +)*(?:{core}) *(?:(?:{behind}) *)*")


def read_knowledge(folder: Path = KNOWLEDGE) -> Knowledge:
    """Reads the YAML files; `phrases.yaml` has the frames of topics and tasks."""
    phrases = read_yaml("phrases", folder)
    more = [read_yaml(name, folder) for name in ("natural", "everyday")]
    entries = [
        entry for name in ("server", "operations", "talk") for entry in read_yaml(name, folder)
    ]
    for entry in entries:
        entry["ask"] = entry.get("ask", []) + [
            pattern for file in more for pattern in file.get(entry["id"], [])
        ]
    return Knowledge(
        facts=tuple(_fact(entry, phrases) for entry in entries),
        prefixes=tuple(phrases["prefixes"]),
        suffixes=tuple(phrases["suffixes"]),
    )


def read_yaml(name: str, folder: Path = KNOWLEDGE) -> Any:
    """One file of the knowledge folder."""
    return yaml.load((folder / f"{name}.yaml").read_text("utf-8"), yaml.CSafeLoader)


def _fact(entry: dict[str, Any], phrases: dict[str, Any]) -> Fact:
    frames = []
    for kind, templates in (("topics", "topic_frames"), ("tasks", "task_frames")):
        if things := "|".join(map(str, entry.get(kind, []))):
            frames += [template.replace("{}", f"({things})") for template in phrases[templates]]
    own, framed = (
        tuple(parse(pattern, phrases["macros"]) for pattern in patterns)
        for patterns in (entry.get("ask", []), frames)
    )
    return Fact(
        id=entry["id"],
        answer=entry["answer"],
        keys=tuple(map(str, entry["keys"])),
        own=own,
        framed=framed,
        is_plain=entry.get("plain", False),
    )
