"""Checks that columns can store texts and metadata."""

from collections.abc import Mapping

from llm_backend.store.errors import Unstorable

# OpenAI's limits. At four bytes a character, a pair just fits into an index entry of PostgreSQL.
_KEY_CHARACTERS, _VALUE_CHARACTERS = 64, 512


def check_texts(*texts: str) -> None:
    """Raises `Unstorable` unless text columns can store all of these."""
    for text in texts:
        if not is_text(text):
            raise Unstorable(f"{text[:64]!r} holds a NUL character or half of a surrogate pair.")


def check_metadata(metadata: Mapping[str, str]) -> None:
    """Raises `Unstorable` unless every pair is within OpenAI's limits and can be stored."""
    check_texts(*metadata, *metadata.values())
    for key, value in metadata.items():
        if len(key) > _KEY_CHARACTERS or len(value) > _VALUE_CHARACTERS:
            raise Unstorable(
                f"A metadata key may have at most {_KEY_CHARACTERS} characters and a value "
                f"{_VALUE_CHARACTERS}: {key[:_KEY_CHARACTERS]!r} is over."
            )


def is_text(text: str) -> bool:
    """True if a text column can store this: no NUL character and no lone surrogate."""
    return "\x00" not in text and (text.isascii() or _is_unicode(text))


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
