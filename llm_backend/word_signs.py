"""Characters within words that are neither letters nor digits: vowel signs, accents, soft hyphens
(pure)."""

import unicodedata

_SOFT_HYPHEN, _WORD_BREAKS = "\u00ad", "\u200b\u200c"  # these two are format characters as well
_BLOCKS = (range(0x0300, 0x2100), range(0xA660, 0xAC00), range(0xFE20, 0xFE30))

WORD_SIGNS = _SOFT_HYPHEN + "".join(
    chr(code)
    for block in _BLOCKS
    for code in block
    if unicodedata.category(chr(code)) in ("Mn", "Mc")
)
"""The characters that extend a word."""


def fold_sign(character: str, other: str) -> str:
    """Returns what folding leaves of a character that is neither a letter nor a digit: of a sign
    that changes the word, such as a vowel's in Hindi, itself; of an accent, a Hebrew or Arabic
    point, or a format character, nothing; of another character, `other`."""
    category = unicodedata.category(character)
    if category in ("Mn", "Mc"):
        position = unicodedata.combining(character)  # Unicode's class: how it joins its letter
        is_point = 10 <= position <= 36 or position >= 200
        return "" if is_point or "\ufe00" <= character <= "\ufe0f" else character
    return "" if category == "Cf" and character not in _WORD_BREAKS else other
