"""Validation of a `ScoreLabels` command against the model and its limits, before it is queued."""

from dataclasses import dataclass

from llm_backend.engine.command_refused import CommandRefused
from llm_backend.engine.media_runs import Projector, Run
from llm_backend.engine.messages import Failure, Question, ScoreLabels
from llm_backend.engine.model import Vocabulary
from llm_backend.engine.scheduling.command_validation import CommandLimits
from llm_backend.engine.scheduling.label_tree import LabelTree, begins_with_another
from llm_backend.engine.scheduling.prompt_tokens import PromptTokens, tokenize_prompt

_BOUNDARY_CHARACTERS = 32  # before a label, which may change its tokens
_MAX_LABEL_TOKENS = 64  # the memory of a label tree grows with the square of a label's length
_MAX_LABEL_CHARACTERS = 32 * _MAX_LABEL_TOKENS  # checked before a label is tokenized


@dataclass(frozen=True, kw_only=True)
class ValidatedQuestion:
    """The tokens of a question, after the shared prompt, and the tree of its labels."""

    tokens: list[int]
    runs: tuple[Run, ...]
    tree: LabelTree


@dataclass(frozen=True, kw_only=True)
class ValidatedScoring:
    """A valid shared prompt and its questions."""

    tokens: list[int]
    runs: tuple[Run, ...]
    questions: list[ValidatedQuestion]

    @property
    def ends_with_text(self) -> bool:
        """True if the shared prompt ends with a token that has logits."""
        return bool(self.tokens) and not (self.runs and self.runs[-1].end == len(self.tokens))

    @property
    def prompt_tokens(self) -> int:
        """Number of tokens of the prompt and of all questions."""
        return len(self.tokens) + sum(len(one.tokens) for one in self.questions)


def validate_scoring(
    command: ScoreLabels,
    limits: CommandLimits,
    labels_limit: int,
    vocabulary: Vocabulary,
    projector: Projector | None = None,
) -> ValidatedScoring:
    """Returns the tokens of a command. Raises `CommandRefused` if it cannot be answered."""
    _check_counts(command, labels_limit)
    limits.check_length(command.prompt, command.parse_special, vocabulary)
    prompt = tokenize_prompt(command.prompt, command, vocabulary, projector)
    limits.check_room(len(prompt.tokens))
    validator = _QuestionValidator(command, prompt, limits, vocabulary, projector)
    questions = [validator.validate(index) for index in range(len(command.questions))]
    limits.check_runs(prompt.runs)
    return ValidatedScoring(tokens=prompt.tokens, runs=tuple(prompt.runs), questions=questions)


def _check_counts(command: ScoreLabels, labels_limit: int) -> None:
    labels = sum(len(question.labels) for question in command.questions)
    if not command.questions or any(not question.labels for question in command.questions):
        message = "There must be at least one question, and each must have at least one label."
        raise CommandRefused(Failure.INVALID, message, "questions")
    if labels > labels_limit:
        message = f"The questions have {labels} labels together; the limit is {labels_limit}."
        raise CommandRefused(Failure.INVALID, message, "questions")


class _QuestionValidator:
    """Validates the questions of one command, after its tokenized prompt."""

    def __init__(
        self,
        command: ScoreLabels,
        prompt: PromptTokens,
        limits: CommandLimits,
        vocabulary: Vocabulary,
        projector: Projector | None,
    ) -> None:
        self._command = command
        self._prompt = prompt
        self._limits = limits
        self._vocabulary = vocabulary
        self._projector = projector
        self._media = len(command.media)  # of the prompt and the questions so far

    def validate(self, index: int) -> ValidatedQuestion:
        """Returns the tokens of a question. Raises `CommandRefused` with its field."""
        question, field = self._command.questions[index], f"questions[{index}]"
        self._limits.check_length(question.text, True, self._vocabulary, field)
        after = PromptTokens(offset=len(self._prompt.tokens), media=self._media)
        self._media += len(question.media)
        tail = tokenize_prompt(question.text, question, self._vocabulary, self._projector, after)
        self._limits.check_runs(tail.runs)
        tree = LabelTree(self._label_tokens(question, f"{field}.labels"))
        self._check_context(tail, tree, field)
        return ValidatedQuestion(
            tokens=[*tail.tokens, *tree.head], runs=tuple(tail.runs), tree=tree
        )

    def _label_tokens(self, question: Question, field: str) -> list[list[int]]:
        """Returns the tokens of each label. Raises `CommandRefused`."""
        before = question.text[-_BOUNDARY_CHARACTERS:]
        known = self._vocabulary.tokenize(before, parse_special=False)
        labels = []
        for index, label in enumerate(question.labels):
            is_short = len(label) <= _MAX_LABEL_CHARACTERS
            tokens = self._tokens_after(before, known, label) if is_short else []
            if not is_short or len(tokens) > _MAX_LABEL_TOKENS:
                message = f"Answer {index}, counted from 0, has over {_MAX_LABEL_TOKENS} tokens."
                raise CommandRefused(Failure.INVALID, message, field)
            labels.append(tokens)
        if not all(labels) or begins_with_another(labels):
            message = (
                "No label may be empty, and the tokens of none may begin with those of another."
            )
            raise CommandRefused(Failure.INVALID, message, field)
        return labels

    def _tokens_after(self, before: str, known: list[int], label: str) -> list[int]:
        """Returns the tokens of a label after the end of its question, whose tokens are `known`; of
        the label alone if it changes those."""
        tokenize = self._vocabulary.tokenize
        both = tokenize(before + label, parse_special=False)
        if both[: len(known)] == known:
            return both[len(known) :]
        return tokenize(label, parse_special=False)

    def _check_context(self, tail: PromptTokens, tree: LabelTree, field: str) -> None:
        longest = max(len(path.tokens) for path in tree.paths())
        length = len(self._prompt.tokens) + len(tail.tokens) + len(tree.head) + longest
        if not tail.tokens or tail.ends_with_media:
            raise CommandRefused(Failure.INVALID, "The question must end with text.", field)
        if length > self._limits.context_tokens:
            raise CommandRefused(
                Failure.CONTEXT_LENGTH,
                f"This model's context is {self._limits.context_tokens} tokens; the prompt and "
                f"this question have {length}. Shorten one of them.",
                field,
            )
