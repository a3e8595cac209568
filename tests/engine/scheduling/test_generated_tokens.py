import re
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_backend.engine.kv_cache.common_prefix import common_prefix_length
from llm_backend.engine.messages import Generate
from llm_backend.engine.scheduling.command_validation import CommandLimits
from llm_backend.engine.scheduling.generated_tokens import GeneratedTokens

PIECES = ["", "a", "b", "ab", "ba", "aba", "<t>", "<", "t", ">", "\n", "\n\n"]
END, A, B, AB, BA, ABA, MARKUP, LESS, T, MORE, LINE, LINES, FIRST_BYTE, LAST_BYTE, ACCENT = range(
    15
)
BYTES = [piece.encode() for piece in PIECES] + [b"\xc3", b"\xa9", b"\xc3\xa9"]
MARKERS = frozenset({END, MARKUP})


class ManyTokenizationsVocabulary:
    """Words of two letters , tokenized in several ways; `tokenize` takes the longest token."""

    size = len(BYTES)

    def is_marker(self, token: int) -> bool:
        return token in MARKERS

    def piece(self, token: int) -> bytes:
        return BYTES[token]

    def prompt_tokens(self, text: str, *, parse_special: bool, add_bos: bool) -> list[int]:
        return self.tokenize(text)

    def tokenize(self, text: str, *, parse_special: bool = True) -> list[int]:
        words = re.findall("aba|ab|ba|\n\n|<end>|.", text, re.DOTALL)
        known = {**{piece: token for token, piece in enumerate(PIECES)}, "<end>": END, "é": ACCENT}
        return [known[word] for word in words]


VOCABULARY = ManyTokenizationsVocabulary()
tokenize = VOCABULARY.tokenize


def text_of(tokens: list[int]) -> list[object]:
    """Text of tokens as bytes, and markup by its number."""
    return [
        one for token in tokens for one in ([("m", token)] if token in MARKERS else BYTES[token])
    ]


@pytest.fixture
def memory() -> GeneratedTokens:
    return GeneratedTokens(VOCABULARY, 1 << 20)


def add(memory: GeneratedTokens, tokens: list[int], prompt_tokens: int) -> None:
    """Remember a chat whose prompt has these tokens, and its answer the others."""
    memory.add(memory.tokenization_of(tokens[:prompt_tokens]), tokens[prompt_tokens:])


def substitute(memory: GeneratedTokens, tokens: list[int]) -> list[int]:
    return memory.substitute(tokens).tokens.tolist()


def test_returned_answer_has_the_tokens_that_were_generated(memory):
    prompt = tokenize("ab<end>")
    add(memory, [*prompt, A, B, BA], len(prompt))

    assert substitute(memory, tokenize("ab<end>abba<end>ab")) == [*prompt, A, B, BA, END, AB]


def test_tokens_of_a_prompt_replace_no_others(memory):
    add(memory, [A, B, END, A, B], 3)

    assert substitute(memory, tokenize("ab<end>ab<end>")) == tokenize("ab<end>ab<end>")


def test_token_across_the_beginning_of_an_answer_is_replaced(memory):
    add(memory, [A, LINE, LINE, B], 2)

    assert substitute(memory, tokenize("a\n\nb<end>")) == [A, LINE, LINE, B, END]


def test_later_turns_keep_the_tokens_of_earlier_answers(memory):
    add(memory, [B, END, A, B], 2)
    memory.add(memory.substitute(tokenize("b<end>ab<end>a<end>")), [B, A])

    assert len(memory) == 1
    third = substitute(memory, tokenize("b<end>ab<end>a<end>ba<end>b"))
    assert third == [B, END, A, B, END, A, END, B, A, END, B]
    assert substitute(memory, tokenize("b<end>ab<end>bbb")) == [B, END, A, B, END, B, B, B]


def test_chat_keeps_its_answers_beside_another_with_the_same_text(memory):
    add(memory, [B, END, A, B], 2)
    first = memory.substitute(tokenize("b<end>ab<end>a<end>"))
    add(memory, [*tokenize("b<end>ab<end>a<end>"), BA], 5)
    memory.add(first, [B, A])

    third = substitute(memory, tokenize("b<end>ab<end>a<end>ba<end>"))
    assert third == [B, END, A, B, END, A, END, B, A, END]
    assert substitute(memory, tokenize("b<end>ab<end>bbb")) == [B, END, A, B, END, B, B, B]


def test_tokenization_of_a_prompt_marks_its_generated_tokens(memory):
    add(memory, [B, END, A, B], 2)

    tokenization = memory.substitute(tokenize("b<end>ab<end>a"))
    assert tokenization.tokens.tolist() == [B, END, A, B, END, A]
    assert tokenization.is_generated == b"\0\0\1\1\0\0"


def test_answer_that_was_cut_has_its_tokens_as_far_as_it_goes(memory):
    add(memory, [B, END, A, B, B, A, B], 2)

    assert substitute(memory, tokenize("b<end>abb<end>")) == [B, END, A, B, B, END]


def test_text_is_never_replaced_by_markup_nor_markup_by_text(memory):
    add(memory, [B, END, MARKUP, A, B], 2)
    typed = [B, END, LESS, T, MORE, AB]
    add(memory, [A, END, LESS, T, MORE, A, B], 2)
    named = [A, END, MARKUP, AB]

    assert substitute(memory, typed) == typed
    assert substitute(memory, named) == named
    assert substitute(memory, [B, END, MARKUP, AB]) == [B, END, MARKUP, A, B]


def test_other_number_of_tokens_without_text_is_another_text(memory):
    add(memory, [B, END, A, END, B], 2)

    assert substitute(memory, [B, END, AB]) == [B, END, AB]


def test_bytes_of_a_character_that_were_generated_apart_are_found(memory):
    add(memory, [B, FIRST_BYTE, LAST_BYTE, FIRST_BYTE], 1)

    assert substitute(memory, tokenize("béa")) == [B, FIRST_BYTE, LAST_BYTE, A]


def test_least_recently_used_chat_is_removed_for_space():
    one = [A, END, A, B]
    small = GeneratedTokens(VOCABULARY, 2 * 500)
    add(small, [END, *one], 3)
    add(small, [B, END, *one], 4)
    substitute(small, [END, A, END, AB])
    add(small, [T, END, *one], 4)

    assert len(small) == 2
    assert small.bytes <= 1000
    assert substitute(small, [END, A, END, AB]) == [END, *one]
    assert substitute(small, [B, END, A, END, AB]) == [B, END, A, END, AB]


def test_chat_larger_than_the_limit_removes_no_other():
    small = GeneratedTokens(VOCABULARY, 500)
    add(small, [B, END, A, B], 2)
    add(small, [*[A] * 100, A, B], 100)

    assert substitute(small, [B, END, AB]) == [B, END, A, B]


def validate(memory: GeneratedTokens, context_tokens: int, command: Generate) -> list[int]:
    limits = CommandLimits(
        context_tokens=context_tokens,
        context_shift_tokens=0,
        batch_tokens=8,
        choices=1,
        stops=0,
        grammar_bytes=0,
    )
    return limits.validate(command, VOCABULARY, None, memory).tokens


@pytest.mark.parametrize(("context_tokens", "answer"), [(6, [A, B]), (5, [AB])])
def test_prompt_has_generated_tokens_if_the_context_holds_them(memory, context_tokens, answer):
    add(memory, [B, END, A, B], 2)
    command = Generate(id="", prompt="b<end>ab<end>", is_chat=True)

    assert validate(memory, context_tokens, command) == [B, END, *answer, END]


@pytest.mark.parametrize(("max_tokens", "answer"), [(4, [A, B]), (None, [AB]), (9, [AB])])
def test_generated_tokens_leave_room_for_the_answer(memory, max_tokens, answer):
    add(memory, [*[END] * 33, A, B], 33)
    text = "<end>" * 33 + "ab<end>"
    command = Generate(id="", prompt=text, is_chat=True, max_tokens=max_tokens)

    assert validate(memory, 40, command) == [*[END] * 33, *answer, END]


def test_work_of_a_long_chat_with_many_differences_is_linear(monkeypatch):
    compared: list[int] = []

    def measured(first: Sequence[int], second: Sequence[int]) -> int:
        compared.append(len(first) + len(second))
        return common_prefix_length(first, second)

    path = "llm_backend.engine.scheduling.generated_tokens.common_prefix_length"
    memory = GeneratedTokens(VOCABULARY, 1 << 20)
    add(memory, [END, *[A, B] * 2000], 1)
    canonical = [END, *[AB] * 2000, END]
    monkeypatch.setattr(path, measured)

    assert substitute(memory, canonical) == [END, *[A, B] * 2000, END]
    assert sum(compared) < 200 * len(canonical)


TEXTS = st.lists(st.sampled_from(["a", "b", "ab", "\n", "<end>"]), max_size=6).map("".join)
ANSWERS = st.lists(st.integers(0, len(BYTES) - 1), min_size=1, max_size=8)


@given(st.lists(st.tuples(TEXTS, ANSWERS), min_size=1, max_size=5), TEXTS)
def test_substitutes_have_the_same_text_and_the_tokens_of_returned_answers(turns, ending):
    """Chats that branch and come back: each prompt has another's text or an end of its own."""
    memory, text = GeneratedTokens(VOCABULARY, 2000), "b<end>"
    for question, answer in turns:
        canonical = tokenize(text + question + "<end>")
        tokenization = memory.substitute(canonical)
        memory.add(tokenization, answer)
        prompt = tokenization.tokens.tolist()
        said = b"".join(BYTES[token] for token in answer if token not in MARKERS)
        readable = re.sub("[^ab\n]", "", said.decode(errors="replace"))
        text += question + "<end>" + readable

        assert text_of(prompt) == text_of(canonical)
        assert memory.bytes <= 2000
        if readable.encode() == said and END not in answer and MARKUP not in answer:
            returned = substitute(memory, tokenize(text + "<end>" + ending))
            assert returned[: len(prompt) + len(answer)] == [*prompt, *answer]
