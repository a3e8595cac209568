"""Constrained decoding: grammars that limit the next token by a mask. The only module that imports
llguidance, and only at the first grammar, so that other workers save its time and memory.

A grammar is compiled once, in a thread of its own, and copied for every answer that it constrains.
The mask of the next token depends only on the tokens before, so it is computed in parallel to the
forward pass. Both threads release the GIL while they work.
"""

import json
import logging
import re
import threading
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from llm_backend.engine.messages import GrammarLimits
from llm_backend.engine.model import Vocabulary
from llm_backend.engine.sampling.grammar_limits import GrammarError, check_grammar
from llm_backend.engine.sampling.invalid_schema import find_invalid_schema

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLParserLimits, LLTokenizer

_log = logging.getLogger("llm_backend.engine.sampling.constraint")

_STACK_BYTES = 1 << 10  # compiler stack per byte of grammar: it recurses into nested rules
_GBNF = re.compile(r"^[^\S\n]*[\w-]+\s*::=", re.MULTILINE)
_GBNF_RULES = 500  # conversion time grows with their square

_WORD_BITS = 32
_MESSAGE_LENGTH = 300  # characters of the native code's message that are passed on
_CONTROL = "\x02"  # a character that no token combines with others


class CompilerError(Exception):
    """The compiler failed on a grammar that may be valid."""


class Constraint:
    """State of one answer in its grammar."""

    def __init__(self, matcher: "LLMatcher", allowed: NDArray[np.uint32], size: int) -> None:
        self._matcher = matcher
        self._words = allowed
        self._address = allowed.ctypes.data
        self._size = size
        self._is_computed = True  # `_words` is the mask of the next token

    @property
    def is_complete(self) -> bool:
        """True if no token can follow: the answer is complete."""
        return bool(self._matcher.is_stopped())

    def compute_mask(self) -> None:
        """Computes the mask of the next token; may be called from another thread, and more than
        once."""
        if not self._is_computed:
            self._matcher.unsafe_compute_mask_ptr(self._address, self._words.nbytes)
            self._is_computed = True

    def mask(self) -> NDArray[np.bool_]:
        """Mask of the allowed tokens: [vocab] bool. End tokens are allowed if the answer can be
        complete here. Raises `GrammarError` if the mask exceeds the limits of computation."""
        self.compute_mask()
        self._check()
        bits = np.unpackbits(self._words.view(np.uint8), count=self._size, bitorder="little")
        return bits.view(np.bool_)

    def accept(self, token: int) -> None:
        """Advances by `token`, which must be allowed."""
        self._is_computed = False
        self._matcher.consume_token(token)
        self._check()

    def fast_forward_tokens(self) -> list[int]:
        """Tokens that the grammar forces (fast-forward); `accept` each."""
        return list(self._matcher.compute_ff_tokens())

    def _check(self) -> None:
        if self._matcher.is_error():
            _log.info(
                "engine.mask_limit_exceeded", extra={"reason": _sentence(self._matcher.get_error())}
            )
            raise GrammarError(
                "The answer cannot go on by this grammar: the mask of the next token takes more "
                "work to compute than is allowed."
            )


@dataclass(frozen=True, kw_only=True)
class CompiledGrammar:
    """A compiled grammar in its initial state, which each answer copies."""

    matcher: "LLMatcher"
    allowed: NDArray[np.uint32]
    size: int

    def constraint(self) -> Constraint:
        """Returns the constraint of one more answer."""
        return Constraint(self.matcher.deep_copy(), self.allowed.copy(), self.size)


class Grammars:
    """The grammars of one model, compiled at first use; the last `limits.cached` stay in memory."""

    def __init__(self, vocabulary: Vocabulary, limits: GrammarLimits) -> None:
        self._vocabulary = vocabulary
        self._limits = limits
        self._cache: OrderedDict[str, Future[CompiledGrammar]] = OrderedDict()
        self._compiler = ThreadPoolExecutor(1, "grammar-compiler")
        self._mask_executor = ThreadPoolExecutor(1, "grammar-masks")

    def compile(self, grammar: str) -> "Future[CompiledGrammar]":
        """Compiles a grammar in the background. The future raises `GrammarError` if the grammar
        is invalid, and `CompilerError` if the compiler failed; the next call compiles such a
        grammar again."""
        cached = self._cache.get(grammar)
        if cached is None or _has_failed(cached):
            cached = self._cache[grammar] = self._submit(grammar)
            if len(self._cache) > self._limits.cached:
                self._cache.popitem(last=False)
        self._cache.move_to_end(grammar)
        return cached

    def cancel(self, grammar: str, compiled: "Future[CompiledGrammar]") -> None:
        """Cancels a compilation that no request waits for, unless it has begun already."""
        if compiled.cancel() and self._cache.get(grammar) is compiled:
            del self._cache[grammar]

    def compute_masks(self, constraints: Sequence[Constraint]) -> "Future[None]":
        """Computes the masks of `constraints`, in parallel to the caller."""

        def compute() -> None:
            for constraint in constraints:
                constraint.compute_mask()

        return self._mask_executor.submit(compute)

    def _submit(self, grammar: str) -> "Future[CompiledGrammar]":
        before = threading.stack_size(self._limits.bytes * _STACK_BYTES)
        try:
            return self._compiler.submit(self._compile, grammar)
        finally:
            threading.stack_size(before)

    def _compile(self, grammar: str) -> CompiledGrammar:
        """Runs in the compiler's thread: any error there fails one grammar, never the worker."""
        try:
            return self._compile_checked(grammar)
        except GrammarError:
            raise
        except BaseException as error:  # a panic of native code is not even an `Exception`
            _log.exception("engine.grammar_failed")
            message = f"The grammar could not be compiled: {type(error).__name__}."
            raise CompilerError(message) from error

    def _compile_checked(self, grammar: str) -> CompiledGrammar:
        if _GBNF.search(grammar):
            grammar = _lark(grammar)
        check_grammar(grammar, self._limits)
        matcher = self._matcher(grammar)
        if matcher.is_error():
            raise self._invalid_grammar(grammar, matcher.get_error())
        words = -(-self._vocabulary.size // _WORD_BITS)
        allowed = np.zeros(words, dtype=np.uint32)
        matcher.unsafe_compute_mask_ptr(allowed.ctypes.data, allowed.nbytes)
        if matcher.is_error():
            _log.info(
                "engine.grammar_unsatisfiable", extra={"reason": _sentence(matcher.get_error())}
            )
            raise GrammarError("No answer follows this grammar, or it takes too long to find one.")
        return CompiledGrammar(matcher=matcher, allowed=allowed, size=self._vocabulary.size)

    def _matcher(self, grammar: str) -> "LLMatcher":
        from llguidance import LLMatcher

        source = json.dumps({"grammars": [{"lark_grammar": grammar}]})  # only Lark is accepted
        return LLMatcher(self._tokenizer, source, log_level=0, limits=self._native_limits)

    def _invalid_grammar(self, grammar: str, message: str) -> GrammarError:
        """The error of a grammar: the native code's message, or for a schema our own words and
        the location in it."""

        def reason(schema: object) -> str | None:
            matcher = self._matcher(f"start: %json {json.dumps(schema)}")
            return matcher.get_error().partition("\n")[0] if matcher.is_error() else None

        invalid = find_invalid_schema(grammar, reason)
        if invalid is None:
            return GrammarError(f"The grammar cannot be used: {_sentence(message)}")
        _log.info("engine.schema_refused", extra={"reason": _sentence(message)})
        return GrammarError(invalid.sentence, invalid.location)

    @cached_property
    def _tokenizer(self) -> "LLTokenizer":
        from llguidance import LLTokenizer

        ends = sorted(self._vocabulary.end_tokens)
        return LLTokenizer(_TokenizerAdapter(self._vocabulary), eos_token=ends)  # type: ignore[arg-type]  # it asks only for what `_TokenizerAdapter` has

    @cached_property
    def _native_limits(self) -> "LLParserLimits":
        from llguidance import LLParserLimits

        limits = self._limits
        return LLParserLimits(
            max_items_in_row=limits.row_items,
            initial_lexer_fuel=limits.compile_fuel,
            step_lexer_fuel=limits.step_fuel,
            step_max_items=limits.step_items,
            max_lexer_states=limits.lexer_states,
            max_grammar_size=limits.symbols,
            verbose_errors=False,
        )


class _TokenizerAdapter:
    """Adapter of a vocabulary for llguidance: the bytes of every token, and a tokenizer.

    Markers are not text: a grammar names them. Text that a grammar forces is tokenized as the model
    would do in the middle of an answer.
    """

    is_tokenizer_wrapper = True
    bos_token_id = None

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._markers = vocabulary.markers
        self.special_token_ids = sorted(self._markers)
        self.eos_token_id = min(vocabulary.end_tokens, default=None)
        self.tokens = [vocabulary.token_bytes(token) for token in range(vocabulary.size)]
        # some vocabularies begin every text with a space, which is wrong in the middle of a text
        self._before = _CONTROL if self._split("a", b" a") is not None else ""

    def __call__(self, text: str) -> list[int]:
        before, data = self._before, text.encode()
        tokens = self._split(before + text, b" " * bool(before) + before.encode() + data)
        if tokens is None:
            return self._greedy(data)
        skipped = 0
        while sum(len(self.tokens[token]) for token in tokens[skipped:]) > len(data):
            skipped += 1
        return tokens[skipped:]

    def _split(self, text: str, expected: bytes) -> list[int] | None:
        """The tokens of a text; None if their bytes differ from the expected ones."""
        tokens = self._vocabulary.tokenize(text, parse_special=False)
        if any(token in self._markers for token in tokens):
            return None
        found = b"".join(self.tokens[token] for token in tokens)
        return tokens if found == expected else None

    def _greedy(self, data: bytes) -> list[int]:
        """Tokenizes greedily by the longest token: for plain text that looks like a marker."""
        tokens = []
        while data:
            lengths = range(min(len(data), self._longest), 0, -1)
            length = next((one for one in lengths if data[:one] in self._plain), None)
            if length is None:
                break  # bytes for which this model has no token
            tokens.append(self._plain[data[:length]])
            data = data[length:]
        return tokens

    @cached_property
    def _plain(self) -> dict[bytes, int]:
        """Text tokens by their bytes."""
        return {
            piece: token
            for token, piece in enumerate(self.tokens)
            if piece and token not in self._markers
        }

    @cached_property
    def _longest(self) -> int:
        return max(map(len, self._plain), default=0)


def _has_failed(compiled: "Future[CompiledGrammar]") -> bool:
    return compiled.done() and isinstance(compiled.exception(), CompilerError)


def _lark(gbnf: str) -> str:
    """Converts llama.cpp's GBNF to Lark."""
    from llguidance.gbnf_to_lark import gbnf_to_lark

    if gbnf.count("::=") > _GBNF_RULES:
        raise GrammarError(f"A GBNF grammar may have {_GBNF_RULES} rules at most.")
    try:
        return gbnf_to_lark(gbnf)
    except Exception as error:  # any error of the converter is the grammar's fault
        raise GrammarError(f"The GBNF grammar cannot be read: {_sentence(str(error))}") from error


def _sentence(message: str) -> str:
    """The first sentence of the native code's message, without the source that it quotes."""
    line = message.strip().partition("\n")[0].strip() or "no reason is given"
    line = line if len(line) <= _MESSAGE_LENGTH else line[: _MESSAGE_LENGTH - 3] + "..."
    return line.rstrip(".") + "."
