"""Validation of a command against the model and its limits, before it is queued."""

import math
from collections import abc
from dataclasses import dataclass

from llm_backend.engine.command_refused import CommandRefused
from llm_backend.engine.media_runs import Projector, Run
from llm_backend.engine.messages import Failure, Generate, LoadModel
from llm_backend.engine.model import Vocabulary
from llm_backend.engine.sampling.parameter_limits import check_sampling
from llm_backend.engine.scheduling.generated_tokens import GeneratedTokens, Tokenization
from llm_backend.engine.scheduling.prompt_tokens import PromptTokens, tokenize_prompt

_PART = 32_768  # characters of a long text whose tokens are counted together
_TOKEN_CHARACTERS = 8  # more than a token has on average in any language
_ANSWER_DIVISOR = 8  # a prompt that generated tokens lengthen leaves this share of the context
_CUT_TOKENS = 64  # upper bound of the tokens that a cut within one token adds


@dataclass(frozen=True, kw_only=True)
class ValidatedPrompt:
    """A valid prompt, and the tokens of the command's prediction. Every answer ends at
    `max_length` tokens. If that is beyond the context, a sequence that reaches `context_tokens`
    drops its oldest tokens, except for the first `n_keep`. A chat whose answer may be remembered
    has a `tokenization`."""

    tokens: list[int]
    runs: tuple[Run, ...]
    max_length: int
    context_tokens: int | None
    n_keep: int
    prediction: list[int]
    tokenization: Tokenization | None


@dataclass(frozen=True, kw_only=True)
class CommandLimits:
    """Upper bounds on one command: prompt length, tokens of an answer beyond the context, choices,
    stop strings, size of a grammar."""

    context_tokens: int
    context_shift_tokens: int
    batch_tokens: int
    choices: int
    stops: int
    grammar_bytes: int

    @classmethod
    def of(cls, config: LoadModel, *, context_tokens: int, batch_tokens: int) -> "CommandLimits":
        """The bounds by a worker's `LoadModel` command."""
        return cls(
            context_tokens=context_tokens,
            context_shift_tokens=config.context_shift_tokens,
            batch_tokens=batch_tokens,
            choices=config.choices_limit,
            stops=config.stops_limit,
            grammar_bytes=config.grammars.bytes,
        )

    def validate(
        self,
        command: Generate,
        vocabulary: Vocabulary,
        projector: Projector | None = None,
        generated_tokens: GeneratedTokens | None = None,
    ) -> ValidatedPrompt:
        """Returns the tokens of a command's prompt and the limit of its answers. In the prompt of a
        chat, earlier answers are the tokens that were generated, if the context has room for these
        and the answer. Raises `CommandRefused` if the command cannot be answered."""
        self._check(command, vocabulary)
        if isinstance(command.prompt, str):
            self.check_length(command.prompt, command.parse_special, vocabulary)
        if command.suffix is not None:
            self.check_length(command.suffix, False, vocabulary, "suffix")
        if command.media:
            _check_media(command)
        prompt = _tokenize_prompt(command, vocabulary, projector)
        tokens = prompt.tokens
        self.check_runs(prompt.runs)
        answer_tokens = 0 if command.max_tokens == 0 else 1
        self.check_room(len(tokens), answer_tokens=answer_tokens)
        tokenization = None
        if generated_tokens is not None and command.is_chat and not prompt.runs:
            tokenization = generated_tokens.substitute(tokens)
            length = len(tokenization.tokens)
            if length > len(tokens) and not self._leaves_room(length, command):
                tokenization = generated_tokens.tokenization_of(tokens)
            tokens = tokenization.tokens.tolist()
        max_length = self._max_length(command, len(tokens), has_media=bool(prompt.runs))
        is_shifted = max_length > self.context_tokens
        return ValidatedPrompt(
            tokens=tokens,
            runs=tuple(prompt.runs),
            max_length=max_length,
            context_tokens=self.context_tokens if is_shifted else None,
            n_keep=_count_begin_tokens(tokens, vocabulary) if is_shifted else 0,
            prediction=self._tokenize_prediction(command.prediction or "", vocabulary),
            tokenization=tokenization,
        )

    def _leaves_room(self, prompt_tokens: int, command: Generate) -> bool:
        """True if a prompt leaves room for `max_tokens`, or for a share of the context if that is
        less."""
        share = max(1, self.context_tokens // _ANSWER_DIVISOR)
        answer_tokens = share if command.max_tokens is None else min(share, command.max_tokens)
        return prompt_tokens + answer_tokens <= self.context_tokens

    def _max_length(self, command: Generate, prompt_tokens: int, *, has_media: bool) -> int:
        """The length at which an answer ends. It is beyond the context only if `max_tokens` is: an
        answer without a limit might never end. A prompt with images or audio ends at the
        context, because the embeddings of an image cannot be dropped in part."""
        if command.max_tokens is None:
            return self.context_tokens
        limit = self.context_tokens + (0 if has_media else self.context_shift_tokens)
        return min(limit, prompt_tokens + command.max_tokens)

    def _tokenize_prediction(self, text: str, vocabulary: Vocabulary) -> list[int]:
        """Tokenizes a prediction, at most as much of it as an answer could hold."""
        text = text[: self.context_tokens * _TOKEN_CHARACTERS]
        return vocabulary.tokenize(text, parse_special=False)[: self.context_tokens]

    def check_room(self, prompt_tokens: int, *, answer_tokens: int = 1) -> None:
        """Raises `CommandRefused` if a prompt and `answer_tokens` exceed the context."""
        if self.context_tokens - prompt_tokens < answer_tokens:
            raise self._too_long(str(prompt_tokens))

    def check_runs(self, runs: abc.Sequence[Run]) -> None:
        """Raises `CommandRefused` for an image that must be computed in one pass but exceeds it."""
        for run in runs:
            if run.part.is_non_causal and run.part.count > self.batch_tokens:
                raise CommandRefused(
                    Failure.INVALID,
                    f"The model reads the {run.part.count} tokens of this image at once, and "
                    f"one pass of this server holds {self.batch_tokens}.",
                    f"media[{run.number}]",
                )

    def check_length(
        self, text: str, parse_special: bool, vocabulary: Vocabulary, field: str = "prompt"
    ) -> None:
        """Raises `CommandRefused` for a text that is far too long, without tokenizing it whole."""
        lower_bound = count_if_far_too_long(
            self.context_tokens, text, vocabulary, parse_special=parse_special
        )
        if lower_bound is not None:
            raise self._too_long(f"more than {lower_bound}", field)

    def _too_long(self, tokens: str, field: str = "prompt") -> CommandRefused:
        text = field.partition("[")[0].removesuffix("s")  # `questions[0]`: the question
        return CommandRefused(
            Failure.CONTEXT_LENGTH,
            f"This model's context is {self.context_tokens} tokens and must hold the answer "
            f"too; the {text} alone has {tokens} tokens. Shorten the {text}.",
            field,
        )

    def _check(self, command: Generate, vocabulary: Vocabulary) -> None:
        if command.n < 1 or command.answer_count > self.choices:
            raise CommandRefused(Failure.INVALID, f"n and best_of must be 1 to {self.choices}.")
        if len(command.stop) > self.stops:
            message = f"There may be at most {self.stops} stop strings."
            raise CommandRefused(Failure.INVALID, message, "stop")
        if command.max_tokens is not None and command.max_tokens < 0:
            message = f"max_tokens is {command.max_tokens}; it must be at least 0."
            raise CommandRefused(Failure.INVALID, message, "max_tokens")
        if command.grammar is not None and len(command.grammar.encode()) > self.grammar_bytes:
            message = f"A grammar may have at most {self.grammar_bytes} bytes."
            raise CommandRefused(Failure.INVALID, message, "grammar")
        if not 0 <= command.min_tokens <= _most_tokens(command):
            message = f"min_tokens is {command.min_tokens}; it must be 0 to max_tokens."
            raise CommandRefused(Failure.INVALID, message, "min_tokens")
        if len(command.stop_token_ids) > self.stops:
            message = f"There may be at most {self.stops} stop tokens."
            raise CommandRefused(Failure.INVALID, message, "stop_token_ids")
        check_sampling(command.sampling)
        check_tokens(list(command.sampling.logit_bias), vocabulary.size, "logit_bias")
        check_tokens(command.stop_token_ids, vocabulary.size, "stop_token_ids")
        if command.suffix is not None:
            _check_infill(command, vocabulary)


def _count_begin_tokens(tokens: abc.Sequence[int], vocabulary: Vocabulary) -> int:
    """Number of tokens of the model's begin token at the start of a prompt: 0 or 1."""
    begin = vocabulary.prompt_tokens("", parse_special=False, add_bos=True)
    return len(begin) if list(tokens[: len(begin)]) == begin else 0


def count_if_far_too_long(
    limit: int, text: str, vocabulary: Vocabulary, *, parse_special: bool
) -> int | None:
    """Lower bound of a text's token count, if that exceeds `limit` and the text is far too long;
    else None.

    The text is tokenized part by part, and no further than needed. The time of the native tokenizer
    grows with the square of a text's special tokens, and every other request would wait for it.

    The parts have as many tokens as the whole text, except for `_CUT_TOKENS` at each cut.
    """
    counted = 0
    for start in range(0, len(text) - _PART, _PART):
        part = text[start : start + _PART]
        tokens = vocabulary.prompt_tokens(part, parse_special=parse_special, add_bos=False)
        counted += max(0, len(tokens) - _CUT_TOKENS)
        if counted > limit:
            return counted
    return None


def check_tokens(tokens: abc.Sequence[int], size: int, field: str) -> None:
    """Raises `CommandRefused` if a token is outside a vocabulary of `size`; `field` names the
    command's field."""
    for token in tokens:
        if not 0 <= token < size:
            message = f"Token {token} is outside of this model's vocabulary of {size}."
            raise CommandRefused(Failure.INVALID, message, field)


def _most_tokens(command: Generate) -> float:
    return math.inf if command.max_tokens is None else command.max_tokens


def _check_infill(command: Generate, vocabulary: Vocabulary) -> None:
    if vocabulary.infill is None:
        message = "This model has no infill tokens (fill in the middle): leave the suffix out."
        raise CommandRefused(Failure.UNSUPPORTED, message, "suffix")
    if command.echo and command.sampling.logprobs is not None:
        message = "With a suffix, the logprobs of an echoed prompt cannot be given."
        raise CommandRefused(Failure.INVALID, message, "echo")


def _check_media(command: Generate) -> None:
    """Raises `CommandRefused` unless media are in a plain text prompt, without `suffix` and
    `echo`."""
    if not isinstance(command.prompt, str) or command.suffix is not None or command.echo:
        message = "Images and audio need a text prompt, without `suffix` and `echo`."
        raise CommandRefused(Failure.INVALID, message, "media")


def _tokenize_prompt(
    command: Generate, vocabulary: Vocabulary, projector: Projector | None
) -> PromptTokens:
    if command.suffix is not None:
        return PromptTokens(tokens=_infill_prompt(command, command.suffix, vocabulary))
    if isinstance(command.prompt, str):
        prompt = tokenize_prompt(command.prompt, command, vocabulary, projector)
    else:
        prompt = PromptTokens(tokens=list(command.prompt))
        check_tokens(prompt.tokens, vocabulary.size, "prompt")
    if not prompt.tokens:
        raise CommandRefused(Failure.INVALID, "The prompt has no tokens.", "prompt")
    if prompt.ends_with_media:
        message = f"There is no text after the last {prompt.runs[-1].media.medium}."
        raise CommandRefused(Failure.INVALID, message, f"media[{prompt.runs[-1].number}]")
    return prompt


def _infill_prompt(command: Generate, suffix: str, vocabulary: Vocabulary) -> list[int]:
    """Infill prompt (fill in the middle): prefix, suffix, and the token after which the model
    writes the text between them."""
    assert vocabulary.infill is not None, "checked before"
    before_prefix, before_suffix, before_middle = vocabulary.infill
    if isinstance(command.prompt, str):
        prefix = vocabulary.tokenize(command.prompt, parse_special=command.parse_special)
    else:
        prefix = list(command.prompt)
        check_tokens(prefix, vocabulary.size, "prompt")
    begin = vocabulary.prompt_tokens("", parse_special=False, add_bos=command.add_bos)
    after = vocabulary.tokenize(suffix, parse_special=False)
    return [*begin, before_prefix, *prefix, before_suffix, *after, before_middle]
