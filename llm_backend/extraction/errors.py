"""Why there is no text.

    ExtractionError
    |- UnsupportedFile    it is of a kind that is not read here
    `- UnreadableFile     it is of a kind that is, but damaged, locked or without text
       `- TooMuchWork     reading it takes more time, memory or text than it may

    TakesLong             not an error of the file: it is not read within a time slice
    ReaderKilled          not either: the process that reads it was killed from outside

A message says what is wrong with the file, in one sentence without its name.
"""

__all__ = [
    "ExtractionError",
    "ReaderKilled",
    "TakesLong",
    "TooMuchWork",
    "UnreadableFile",
    "UnsupportedFile",
]


class ExtractionError(Exception):
    """A file's text cannot be had."""


class UnsupportedFile(ExtractionError):
    """The file is of a kind that is not read here."""


class UnreadableFile(ExtractionError):
    """The file is damaged, locked by a password, or holds no text."""


class TooMuchWork(UnreadableFile):
    """Reading the file takes more than it may."""


class TakesLong(Exception):
    """The file is not read within one time slice, and its caller wants no more than that."""


class ReaderKilled(Exception):
    """The process that reads the file was killed from outside, again and again: the file may be
    read later."""
