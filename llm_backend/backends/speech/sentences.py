"""Sentences of a text that is still being written. Pure."""

import re

# The end of a sentence: its punctuation mark and what follows it; a line break; or a Chinese or
# Japanese mark, which no blank follows.
_END = re.compile(r"[.!?\u2026:;][\"')\]\u201d\u2019]*\s+|\n+|[\u3002\uff01\uff1f]")
_LEAST_CHARACTERS = 12  # a shorter sentence is joined with the next
GREATEST_CHARACTERS = 1000
"""Characters at which a sentence without an end is cut."""

# The end of a clause: a comma or dash and a blank, or a Chinese or Japanese comma.
_CLAUSE = re.compile(r"[,\u2013\u2014]\s+|[\u3001\uff0c]")
_LEAST_BEGINNING = 30  # characters of the first part of a divided sentence
_BEGINNING_CHARACTERS = 60

_IS_WORD = re.compile(r"\w")


class SentenceSplitter:
    """Divides a text into sentences of at most `greatest` characters; joined, they are the text."""

    def __init__(self, greatest: int = GREATEST_CHARACTERS) -> None:
        self._greatest = greatest
        self._text = ""

    def feed(self, text: str) -> list[str]:
        """Adds text, and returns the sentences that have ended."""
        self._text += text
        found = []
        while (end := self._end()) is not None:
            found.append(self._text[:end])
            self._text = self._text[end:]
        return found

    def finish(self) -> list[str]:
        """Returns the rest of the text as a sentence, if there is any."""
        rest, self._text = self._text, ""
        return [rest] if rest else []

    def _end(self) -> int | None:
        for match in _END.finditer(self._text):
            if match.end() > self._greatest:
                break
            if match.end() >= _LEAST_CHARACTERS:
                return match.end()
        if len(self._text) < self._greatest:
            return None
        blank = self._text.rfind(" ", 1, self._greatest)
        return self._greatest if blank < 0 else blank + 1


def split_beginning(sentence: str) -> list[str]:
    """Divides a long sentence in two, so that its audio begins early: at the last comma within
    about 60 characters, else at the first blank after them. A short sentence, or one without such a
    comma or blank, is not divided."""
    if len(sentence) < _BEGINNING_CHARACTERS + _LEAST_BEGINNING:
        return [sentence]
    commas = [found.end() for found in _CLAUSE.finditer(sentence, 0, _BEGINNING_CHARACTERS + 1)]
    end = commas[-1] if commas and commas[-1] >= _LEAST_BEGINNING else None
    if end is None:
        end = sentence.find(" ", _BEGINNING_CHARACTERS) + 1
    parts = [sentence[:end], sentence[end:]]
    return parts if all(map(is_spoken, parts)) else [sentence]


def is_spoken(text: str) -> bool:
    """True if a text has letters or digits, which a voice can read."""
    return _IS_WORD.search(text) is not None
