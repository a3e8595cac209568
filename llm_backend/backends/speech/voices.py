"""Names of voices: OpenAI's, and those of `espeak-ng` (pure)."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal

OPENAI_VOICES: Mapping[str, str] = {
    "alloy": "en-us",
    "ash": "en-us+m8",
    "ballad": "en-gb+m2",
    "cedar": "en-us+m3",
    "coral": "en-us+f1",
    "echo": "en-us+m4",
    "fable": "en-gb+m5",
    "marin": "en-us+f2",
    "nova": "en-us+f3",
    "onyx": "en-us+m6",
    "sage": "en-us+f4",
    "shimmer": "en-us+f5",
    "verse": "en-us+m7",
}
"""Voices of `espeak-ng` for OpenAI's names: a language, and a variant of its timbre."""

_GENDERS: Mapping[str, Literal["female", "male"]] = {"M": "male", "F": "female"}
# A line of `espeak-ng --voices`: priority, language, age/gender, name, file, other languages. Only
# the file may contain blanks.
_LINE = re.compile(r"\s*\d+\s+(\S+)\s+\S*/(\S)\s+(\S+)\s+(\S.*?)\s*(?:\([^()]*\))*\s*")


@dataclass(frozen=True, kw_only=True)
class Voice:
    """A voice as it is listed. `id` is the name by which it is chosen: a language, or for
    a variant the name of its file. `espeak-ng` gets the voice's `file`, because it
    ignores variants of some voices that are chosen by a language. `file` is empty for voices of
    other programs."""

    id: str
    name: str
    language: str
    gender: Literal["female", "male"] | None
    file: str


def parse_voices(listing: str) -> Iterator[Voice]:
    """Parses what `espeak-ng --voices` prints; lines that are not voices are left out."""
    for line in listing.splitlines():
        if (found := _LINE.fullmatch(line)) is not None:
            language, gender, name, file = found.groups()
            is_variant = file.startswith("!v/")
            yield Voice(
                id=file.removeprefix("!v/") if is_variant else language,
                name=name.replace("_", " "),
                language=language,
                gender=_GENDERS.get(gender),
                file=file.removeprefix("!v/"),
            )


def voices_by_id(listing: str) -> Mapping[str, Voice]:
    """Parses what `espeak-ng --voices` prints; of several with the same id the first is kept."""
    voices: dict[str, Voice] = {}
    for voice in parse_voices(listing):
        voices.setdefault(voice.id, voice)
    return voices


@dataclass(frozen=True, kw_only=True)
class VoiceNames:
    """Voices and variants of the program by id; `others` maps further names to ids."""

    voices: Mapping[str, Voice]
    variants: Mapping[str, Voice]
    others: Mapping[str, str]

    def find(self, name: str) -> str | None:
        """Returns the program's file of a voice, `LANGUAGE` or `LANGUAGE+VARIANT`; None if there is
        no such voice."""
        language, plus, variant = self.others.get(name, name).partition("+")
        if language not in self.voices or (plus and variant not in self.variants):
            return None
        return self.voices[language].file + plus + variant

    def list_voices(self) -> Iterator[Voice]:
        """Yields a voice for each further name, and then the program's own voices."""
        for name, id in self.others.items():
            file = self.find(name)
            if file is None:
                continue
            language, _, variant = id.partition("+")
            voice = self.voices[language]
            gender = self.variants.get(variant, voice).gender
            yield replace(voice, id=name, name=f"{name} ({id})", gender=gender, file=file)
        yield from self.voices.values()
