"""Converts a WordPiece vocabulary to llama.cpp's form.

BERT marks the pieces that continue a word (`##ing`); llama.cpp marks those that begin one, with
U+2581 for the space before the word, and looks pieces up by their exact text. So `##ing` becomes
`ing`, `play` becomes `▁play`, and special tokens keep their text.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from llm_backend.json_types import JsonMapping
from llm_backend.model_import.errors import ConversionError
from llm_backend.model_import.folder import json_object

_CONTINUES = "##"
_BEGINS = "\u2581"
_ROLES = {
    "cls": "[CLS]",
    "sep": "[SEP]",
    "unk": "[UNK]",
    "pad": "[PAD]",
    "mask": "[MASK]",
}


class TokenKind(Enum):
    """Kind of a token; special tokens are never produced from a user's text."""

    NORMAL = "normal"
    SPECIAL = "special"
    USER_DEFINED = "user defined"
    UNUSED = "unused"


@dataclass(frozen=True, kw_only=True)
class WordPieceVocabulary:
    """WordPiece vocabulary: tokens and kinds by id, and the normalization of text.

    `special_ids` holds the ids of `cls`, `sep`, `unk`, `pad` and `mask`.
    """

    tokens: Sequence[str]
    kinds: Sequence[TokenKind]
    special_ids: Mapping[str, int]
    lowercase: bool
    strip_accents: bool


@dataclass(frozen=True, kw_only=True)
class _Pieces:
    """Vocabulary in the form of the model's folder."""

    ids: Mapping[str, int]
    added: Mapping[str, TokenKind]
    lowercase: bool
    strip_accents: bool


def read_vocabulary(folder: Path, size: int) -> WordPieceVocabulary:
    """Reads the folder's vocabulary, padded to `size`, the rows of the embedding table.

    Raises `ConversionError` if there is none, or if llama.cpp would tokenize differently.
    """
    fast = folder / "tokenizer.json"
    pieces = _from_tokenizer_json(fast) if fast.is_file() else _from_vocab_txt(folder)
    special_ids = _special_ids(folder, pieces.ids)
    by_id = {token_id: piece for piece, token_id in pieces.ids.items()}
    if len(by_id) != len(pieces.ids) or not all(0 <= token_id < size for token_id in by_id):
        raise ConversionError(f"The vocabulary of {folder} does not fit {size} embeddings.")
    kinds = {by_id[token_id]: TokenKind.SPECIAL for token_id in special_ids.values()}
    kinds = {**pieces.added, **kinds}
    tokens, token_kinds = [], []
    for token_id in range(size):
        piece = by_id.get(token_id)
        kind = TokenKind.UNUSED if piece is None else kinds.get(piece, TokenKind.NORMAL)
        tokens.append(f"[unused row {token_id}]" if piece is None else _mark_piece(piece, kind))
        token_kinds.append(kind)
    _refuse_duplicates(folder, tokens)
    return WordPieceVocabulary(
        tokens=tokens,
        kinds=token_kinds,
        special_ids=special_ids,
        lowercase=pieces.lowercase,
        strip_accents=pieces.strip_accents,
    )


def _from_tokenizer_json(path: Path) -> _Pieces:
    document = json_object(path)
    model = document.get("model") or {}
    normalizer = document.get("normalizer") or {}
    _refuse_other_tokenizers(path, model, normalizer)
    added = {
        entry["content"]: (entry["id"], entry.get("special", False))
        for entry in document.get("added_tokens") or []
    }
    return _Pieces(
        ids={**model["vocab"], **{piece: token_id for piece, (token_id, _) in added.items()}},
        added={
            piece: TokenKind.SPECIAL if is_special else TokenKind.USER_DEFINED
            for piece, (_, is_special) in added.items()
        },
        **_normalization(normalizer.get("lowercase", True), normalizer.get("strip_accents")),
    )


def _refuse_other_tokenizers(path: Path, model: JsonMapping, normalizer: JsonMapping) -> None:
    is_wordpiece = (
        model.get("type", "WordPiece") == "WordPiece"
        and model.get("continuing_subword_prefix", _CONTINUES) == _CONTINUES
        and isinstance(model.get("vocab"), dict)
    )
    if not is_wordpiece:
        raise ConversionError(f"The tokenizer of {path} is not a WordPiece tokenizer.")
    is_bert = normalizer.get("type") == "BertNormalizer" and normalizer.get(
        "handle_chinese_chars", True
    )
    if not is_bert:
        raise ConversionError(f"The tokenizer of {path} does not normalize text as BERT does.")


def _from_vocab_txt(folder: Path) -> _Pieces:
    path = folder / "vocab.txt"
    if not path.is_file():
        raise ConversionError(f"{folder} has neither tokenizer.json nor vocab.txt.")
    # not splitlines(): some vocabularies have pieces with characters that it splits at
    lines = path.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    config = json_object(folder / "tokenizer_config.json")
    _refuse_duplicates(folder, lines)
    return _Pieces(
        ids={line: token_id for token_id, line in enumerate(lines)},
        added={},
        **_normalization(config.get("do_lower_case", True), config.get("strip_accents")),
    )


def _normalization(lowercase: bool, strip_accents: bool | None) -> dict[str, bool]:
    """Returns the normalization: by default BERT strips accents if it lowers case."""
    return {
        "lowercase": lowercase,
        "strip_accents": lowercase if strip_accents is None else strip_accents,
    }


def _special_ids(folder: Path, ids: Mapping[str, int]) -> Mapping[str, int]:
    named = {
        **json_object(folder / "tokenizer_config.json"),
        **json_object(folder / "special_tokens_map.json"),
    }
    special_ids = {}
    for role, usual in _ROLES.items():
        entry = named.get(f"{role}_token") or usual
        piece = entry["content"] if isinstance(entry, dict) else entry
        if piece not in ids:
            raise ConversionError(f"The vocabulary of {folder} has no {piece} token.")
        special_ids[role] = ids[piece]
    return special_ids


def _mark_piece(piece: str, kind: TokenKind) -> str:
    if kind is not TokenKind.NORMAL:
        return piece
    if piece.startswith(_CONTINUES) and piece != _CONTINUES:
        return piece.removeprefix(_CONTINUES)
    return _BEGINS + piece


def _refuse_duplicates(folder: Path, tokens: Sequence[str]) -> None:
    token, count = Counter(tokens).most_common(1)[0]
    if count > 1:
        raise ConversionError(f"The vocabulary of {folder} holds {token!r} {count} times.")
