"""A model's vocabulary: text to tokens and back."""

import ctypes
from functools import cached_property
from typing import Any

import llama_cpp as native

from llm_backend.engine.model import PairFrame

__all__ = ["Handle", "LlamaVocabulary"]

_SPARE = 128  # tokens that sizes may differ by: files of one family are padded differently

Handle = Any  # handles of the bindings are untyped: what crosses this edge is Any


class LlamaVocabulary:
    """Text to tokens and back."""

    def __init__(self, handle: Handle) -> None:
        self._handle = handle
        self._pieces: dict[int, bytes] = {}
        self.size: int = native.llama_vocab_n_tokens(handle)
        self._bos: int = native.llama_vocab_bos(handle)
        self._adds_bos: bool = native.llama_vocab_get_add_bos(handle)

    def difference(self, other: "LlamaVocabulary") -> str | None:
        """How the tokens of another vocabulary differ, in a few words; None if a token of one is
        the same one of the other. A few tokens more at the end are none that count."""
        if native.llama_vocab_type(self._handle) != native.llama_vocab_type(other._handle):
            return "the tokens are of another kind"
        if abs(self.size - other.size) > _SPARE:
            return f"there are {other.size:,} tokens, not {self.size:,}"
        if (self._bos, self.eos) != (other._bos, other.eos):
            return "a text begins or ends with another token"
        for token in range(min(self.size, other.size)):
            ours, theirs = self.written(token), other.written(token)
            if ours != theirs:
                return f"token {token} is {theirs!r}, not {ours!r}"
        return None

    @cached_property
    def end_tokens(self) -> frozenset[int]:
        """The tokens that end a generation."""
        is_end = native.llama_vocab_is_eog
        return frozenset(token for token in range(self.size) if is_end(self._handle, token))

    @property
    def control_names(self) -> list[str]:
        """How control tokens are written."""
        control = native.LLAMA_TOKEN_ATTR_CONTROL | native.LLAMA_TOKEN_ATTR_UNKNOWN
        return [
            self.name(token)
            for token in range(self.size)
            if native.llama_token_get_attr(self._handle, token) & control
        ]

    @cached_property
    def markers(self) -> frozenset[int]:
        """The tokens that are markup and no text: control tokens, `<tool_call>` and its like."""
        return frozenset(token for token in range(self.size) if self._is_marker(token))

    @cached_property
    def pair_frame(self) -> PairFrame:
        """How a pair of texts is framed: begin, query, end, separator, document, end; without an
        end token a separator ends the document too, as it ends any text of such models."""
        separator: int = native.llama_vocab_sep(self._handle)
        end: int = native.llama_vocab_eos(self._handle)
        ends = (
            [end if end >= 0 else separator] if native.llama_vocab_get_add_eos(self._handle) else []
        )
        separators = [separator] if native.llama_vocab_get_add_sep(self._handle) else []
        return PairFrame(
            before=_existing([self._bos] if self._adds_bos else []),
            between=_existing([*ends, *separators]),
            after=_existing(ends or separators),
        )

    @cached_property
    def infill(self) -> tuple[int, int, int] | None:
        """The tokens before a prefix, before a suffix and before what goes between them."""
        prefix: int = native.llama_vocab_fim_pre(self._handle)
        suffix: int = native.llama_vocab_fim_suf(self._handle)
        middle: int = native.llama_vocab_fim_mid(self._handle)
        return None if min(prefix, suffix, middle) < 0 else (prefix, suffix, middle)

    def prompt_tokens(self, text: str, *, parse_special: bool, add_bos: bool) -> list[int]:
        """The tokens of a prompt, after the begin token if it is wanted and not there already."""
        tokens = self.tokenize(text, parse_special=parse_special)
        if add_bos and self._adds_bos and tokens[:1] != [self._bos]:
            tokens.insert(0, self._bos)
        return tokens

    def tokenize(self, text: str, *, parse_special: bool, add_special: bool = False) -> list[int]:
        """The tokens of a text; `add_special` frames it with the tokens that the model expects."""
        data = text.encode("utf-8", errors="replace")
        room = len(data) + 8
        while True:
            tokens = (native.llama_token * room)()
            count = native.llama_tokenize(
                self._handle, data, len(data), tokens, room, add_special, parse_special
            )
            if count >= 0:
                return list(tokens[:count])
            room = -count

    def piece(self, token: int) -> bytes:
        """The bytes that a token adds to a text; control tokens add none."""
        known = self._pieces.get(token)
        if known is None:
            known = self._pieces[token] = self._render(token, special=False)
        return known

    def label(self, token: int) -> bytes:
        """The bytes by which a token is shown, control tokens too."""
        return self.piece(token) or self._render(token, special=True)

    def text(self, tokens: list[int]) -> str:
        """The text of tokens, control tokens left out."""
        return b"".join(map(self.piece, tokens)).decode(errors="replace")

    def name(self, token: int) -> str:
        """How a token is written, control tokens too; empty for one that does not exist."""
        return self._render(token, special=True).decode(errors="replace") if token >= 0 else ""

    @property
    def eos(self) -> int:
        """The end token; below zero if there is none."""
        end: int = native.llama_vocab_eos(self._handle)
        return end

    def written(self, token: int) -> str:
        """How the file writes a token that exists."""
        text: bytes = native.llama_vocab_get_text(self._handle, token)
        return text.decode(errors="replace")

    @property
    def bos_token(self) -> str:
        """The begin token as text."""
        return self.name(self._bos)

    @property
    def eos_token(self) -> str:
        """The end token as text."""
        return self.name(native.llama_vocab_eos(self._handle))

    def _is_marker(self, token: int) -> bool:
        kind = native.llama_token_get_attr(self._handle, token)
        if kind & (native.LLAMA_TOKEN_ATTR_CONTROL | native.LLAMA_TOKEN_ATTR_UNKNOWN):
            return True
        piece = self.piece(token) if kind & native.LLAMA_TOKEN_ATTR_USER_DEFINED else b""
        return piece.startswith(b"<") and piece.endswith(b">")

    def _render(self, token: int, *, special: bool) -> bytes:
        room = 64
        while True:
            buffer = ctypes.create_string_buffer(room)
            count = native.llama_token_to_piece(self._handle, token, buffer, room, 0, special)
            if count >= 0:
                return buffer.raw[:count]
            room = -count


def _existing(tokens: list[int]) -> list[int]:
    """Without those that the vocabulary does not have."""
    return [token for token in tokens if token >= 0]
