"""Errors of text extraction.

    ExtractionError
    |- UnsupportedFile    this kind of file is not supported
    `- UnreadableFile     the file is damaged, locked or without text
       `- ExtractionLimitExceeded  reading exceeds a limit of time, memory or text

    NotShort         no error of the file: it is not short, and only short ones are wanted
    ReaderKilled     no error of the file: its child process was killed from outside

A message describes the error of the file in one sentence, without the file's name.
"""


class ExtractionError(Exception):
    """The text of a file cannot be extracted."""


class UnsupportedFile(ExtractionError):
    """This kind of file is not supported."""


class UnreadableFile(ExtractionError):
    """The file is damaged, locked by a password, or holds no text."""


class ExtractionLimitExceeded(UnreadableFile):
    """Reading the file exceeds a limit of time, memory or text."""


class NotShort(Exception):
    """The file is not short: reading exceeds one time slice, or its text is long, and the caller
    wants only short files."""


class ReaderKilled(Exception):
    """The process that reads the file was killed from outside, repeatedly: a later attempt may
    succeed."""
