"""A model's vocabulary: text to tokens and back."""

import ctypes
from functools import cached_property
from typing import Any

import llama_cpp as native

from llm_backend.engine.model import PairFrame

# Sizes of two vocabularies may differ by this much: files of one family are padded differently.
_PADDING_TOKENS = 128

Handle = Any  # the bindings do not type their handles


class LlamaVocabulary:
    """Tokenizer of a model: text to tokens and back."""

    def __init__(self, handle: Handle) -> None:
        self._handle = handle
        self._pieces: dict[int, bytes] = {}
        self.size: int = native.llama_vocab_n_tokens(handle)
        self._bos: int = native.llama_vocab_bos(handle)
        self._adds_bos: bool = native.llama_vocab_get_add_bos(handle)

    def difference(self, other: "LlamaVocabulary") -> str | None:
        """Returns the difference to another vocabulary in a few words; None if each token has the
        same number in both. Up to `_PADDING_TOKENS` further tokens at the end are ignored."""
        if native.llama_vocab_type(self._handle) != native.llama_vocab_type(other._handle):
            return "the tokens are of another kind"
        if abs(self.size - other.size) > _PADDING_TOKENS:
            return f"there are {other.size:,} tokens, not {self.size:,}"
        if (self._bos, self.eos) != (other._bos, other.eos):
            return "a text begins or ends with another token"
        for token in range(min(self.size, other.size)):
            ours, theirs = self.spelling(token), other.spelling(token)
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
        """Names of the control tokens."""
        control = native.LLAMA_TOKEN_ATTR_CONTROL | native.LLAMA_TOKEN_ATTR_UNKNOWN
        return [
            self.name(token)
            for token in range(self.size)
            if native.llama_vocab_get_attr(self._handle, token) & control
        ]

    @cached_property
    def markers(self) -> frozenset[int]:
        """Markup tokens: control tokens, and tokens like `<tool_call>`."""
        return frozenset(token for token in range(self.size) if self.is_marker(token))

    @cached_property
    def pair_frame(self) -> PairFrame:
        """Tokens around a pair of texts, in the order: begin, query, end, separator, document, end.
        If the vocabulary has no end token, a separator ends every text, also the document."""
        separator: int = native.llama_vocab_sep(self._handle)
        end = self.eos if self.eos >= 0 else separator
        ends = [end] if native.llama_vocab_get_add_eos(self._handle) else []
        separators = [separator] if native.llama_vocab_get_add_sep(self._handle) else []
        return PairFrame(
            before=_existing([self._bos] if self._adds_bos else []),
            between=_existing([*ends, *separators]),
            after=_existing(ends or separators),
        )

    @cached_property
    def infill(self) -> tuple[int, int, int] | None:
        """Infill tokens (fill in the middle): before a prefix, before a suffix and before the
        text between them; None if there are none."""
        prefix: int = native.llama_vocab_fim_pre(self._handle)
        suffix: int = native.llama_vocab_fim_suf(self._handle)
        middle: int = native.llama_vocab_fim_mid(self._handle)
        return None if min(prefix, suffix, middle) < 0 else (prefix, suffix, middle)

    def prompt_tokens(self, text: str, *, parse_special: bool, add_bos: bool) -> list[int]:
        """Tokenizes a prompt. With `add_bos`, the begin token precedes it unless it is there."""
        tokens = self.tokenize(text, parse_special=parse_special)
        if add_bos and self._adds_bos and tokens[:1] != [self._bos]:
            tokens.insert(0, self._bos)
        return tokens

    def tokenize(self, text: str, *, parse_special: bool, add_special: bool = False) -> list[int]:
        """Tokenizes a text; `add_special` adds the tokens that the model expects around it."""
        data = text.encode("utf-8", errors="replace")
        capacity = len(data) + 8
        while True:
            tokens = (native.llama_token * capacity)()
            count = native.llama_tokenize(
                self._handle, data, len(data), tokens, capacity, add_special, parse_special
            )
            if count >= 0:
                return list(tokens[:count])
            capacity = -count

    def piece(self, token: int) -> bytes:
        """Returns the bytes that a token adds to a text; control tokens add none."""
        piece = self._pieces.get(token)
        if piece is None:
            piece = self._pieces[token] = self._render(token, special=False)
        return piece

    def token_bytes(self, token: int) -> bytes:
        """Returns the bytes of a token as text; a control token has its name."""
        return self.piece(token) or self._render(token, special=True)

    def text(self, tokens: list[int]) -> str:
        """Returns the text of tokens; control tokens have none."""
        return b"".join(map(self.piece, tokens)).decode(errors="replace")

    def name(self, token: int) -> str:
        """Returns the name of a token, also of a control token; empty for a missing token (-1)."""
        return self._render(token, special=True).decode(errors="replace") if token >= 0 else ""

    @property
    def eos(self) -> int:
        """Number of the end token; below zero if there is none."""
        end: int = native.llama_vocab_eos(self._handle)
        return end

    def spelling(self, token: int) -> str:
        """Returns an existing token as the model's file spells it."""
        text: bytes = native.llama_vocab_get_text(self._handle, token)
        return text.decode(errors="replace")

    @property
    def bos_token(self) -> str:
        """Name of the begin token."""
        return self.name(self._bos)

    @property
    def eos_token(self) -> str:
        """Name of the end token."""
        return self.name(self.eos)

    def is_marker(self, token: int) -> bool:
        """True for one of the `markers`."""
        kind = native.llama_vocab_get_attr(self._handle, token)
        if kind & (native.LLAMA_TOKEN_ATTR_CONTROL | native.LLAMA_TOKEN_ATTR_UNKNOWN):
            return True
        piece = self.piece(token) if kind & native.LLAMA_TOKEN_ATTR_USER_DEFINED else b""
        return piece.startswith(b"<") and piece.endswith(b">")

    def _render(self, token: int, *, special: bool) -> bytes:
        size = 64
        while True:
            buffer = ctypes.create_string_buffer(size)
            count = native.llama_token_to_piece(self._handle, token, buffer, size, 0, special)
            if count >= 0:
                return buffer.raw[:count]
            size = -count


def _existing(tokens: list[int]) -> list[int]:
    """Returns the tokens that the vocabulary has: a missing one is below zero."""
    return [token for token in tokens if token >= 0]
