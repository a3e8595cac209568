"""Yes/no classifier: the probability of yes under a grammar."""

import math

import numpy as np
import pytest

from llm_backend.backends.local.yes_no import YES_OR_NO, YesNoWords, likelihood_of_yes
from llm_backend.engine.messages import GrammarLimits, Sampling, TokenLogprob
from llm_backend.engine.sampling import Sampler
from llm_backend.engine.sampling.constraint import Grammars

WORDS = (b"\0", b"Maybe", b"Yes", b"yes", b"Y", b"No", b"no", b"n", b" yes", b"Yesterday")


class WordVocabulary:
    """A vocabulary of whole words; the first token ends an answer."""

    size = len(WORDS)
    end_tokens = markers = frozenset({0})

    def tokenize(self, text: str, **_: object) -> list[int]:
        return []  # a split that is no use: the longest tokens are taken

    def token_bytes(self, token: int) -> bytes:
        return WORDS[token]


@pytest.fixture(scope="module")
def allowed() -> np.ndarray:
    grammar = Grammars(WordVocabulary(), GrammarLimits()).compile(YES_OR_NO.grammar).result(30)
    return grammar.constraint().mask()


def test_grammar_allows_only_prefixes_of_yes_and_no(allowed):
    allowed_texts = {word for word, is_allowed in zip(WORDS, allowed, strict=True) if is_allowed}

    assert allowed_texts == {b"Yes", b"yes", b"Y", b"No", b"no", b"n"}


def test_likelihood_is_the_share_of_yes_tokens(allowed):
    shares = {b"Maybe": 0.5, b"Yes": 0.2, b"yes": 0.06, b"Y": 0.04, b"No": 0.05, b"no": 0.04,
              b"n": 0.01, b"Yesterday": 0.1}  # fmt: skip
    logits = np.log([shares.get(word, 1e-9) for word in WORDS]).astype(np.float32)
    sampling = Sampling(temperature=0, logprobs=20, constrained_logprobs=True)
    chosen = Sampler(sampling, index=0, prompt=[], token_bytes=bytes).choose(logits, allowed)
    rivals = [
        TokenLogprob(token=one.token, bytes=WORDS[one.token], logprob=one.logprob)
        for one in chosen.top
    ]

    assert likelihood_of_yes(rivals) == pytest.approx(0.3 / 0.4, abs=1e-6)
    assert WORDS[chosen.token] == b"Yes"
    assert math.exp(chosen.logprob) == pytest.approx(0.2 / 0.4, abs=1e-6)


def test_impossible_yes_has_likelihood_zero():
    no = TokenLogprob(token=5, bytes=b"No", logprob=0.0)

    assert likelihood_of_yes([no]) == 0


def test_question_may_have_other_words():
    words = YesNoWords(yes=("unsafe",), no=("safe",))
    said = [
        TokenLogprob(token=1, bytes=b"un", logprob=math.log(0.3)),
        TokenLogprob(token=2, bytes=b"safe", logprob=math.log(0.1)),
    ]

    assert likelihood_of_yes(said, words) == pytest.approx(0.75)
    assert words.grammar == "start: /unsafe|safe/"
