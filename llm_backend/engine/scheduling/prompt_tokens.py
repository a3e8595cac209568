"""Tokenizes a text prompt: pieces of text that share no token, and media between them."""

from dataclasses import dataclass, field
from itertools import groupby

from llm_backend.engine.command_refused import CommandRefused
from llm_backend.engine.media_runs import (
    MediaError,
    Part,
    Projector,
    Run,
    placeholder_tokens,
)
from llm_backend.engine.messages import (
    Failure,
    Generate,
    MediaItem,
    MediaKind,
    Question,
    ScoreLabels,
    Tokenize,
)
from llm_backend.engine.model import Vocabulary

_REFUSALS = {MediaKind.IMAGE: "sees no images", MediaKind.AUDIO: "hears no audio"}


@dataclass(kw_only=True)
class PromptTokens:
    """The tokens of a prompt, with the runs of its media. For a text that follows a prompt,
    `offset` is the number of the prompt's tokens, and `media` the number of media before the
    text."""

    offset: int = 0
    media: int = 0
    tokens: list[int] = field(default_factory=list)
    runs: list[Run] = field(default_factory=list)

    @property
    def ends_with_media(self) -> bool:
        """True if no token follows the last medium."""
        return bool(self.runs) and self.runs[-1].end == self.offset + len(self.tokens)

    def mask_media(self) -> list[int | None]:
        """Returns the tokens, None for each one of media."""
        if not self.runs:
            return list(self.tokens)
        return [token if token >= 0 else None for token in self.tokens]

    def add(self, media: MediaItem, number: int, projector: Projector | None) -> None:
        """Appends a medium; `number` is its index among the text's. Raises `CommandRefused`."""
        number += self.media
        field_name = f"media[{number}]"
        if projector is None or media.medium not in projector.media:
            message = f"This model {_REFUSALS[media.medium]}."
            raise CommandRefused(Failure.UNSUPPORTED, message, field_name)
        try:
            pieces = projector.pieces(media)
        except MediaError as error:
            raise CommandRefused(Failure.INVALID, str(error), field_name) from error
        parts = 0
        for piece in pieces:
            if not isinstance(piece, Part):
                self.tokens += piece
                continue
            start = self.offset + len(self.tokens)
            self.runs.append(
                Run(media=media, number=number, part_index=parts, part=piece, start=start)
            )
            self.tokens += placeholder_tokens(media, parts, piece.count)
            parts += 1


def tokenize_prompt(
    text: str,
    command: Generate | ScoreLabels | Question | Tokenize,
    vocabulary: Vocabulary,
    projector: Projector | None = None,
    after: PromptTokens | None = None,
) -> PromptTokens:
    """Tokenizes the pieces of `text` between the command's cuts, and inserts its media. The begin
    token comes first if the command wants it. The text of a `Question` is tokenized into `after`,
    which has its position and no tokens. Raises `CommandRefused` for a medium that cannot be
    read."""
    prompt, start = after or PromptTokens(), 0
    media = {
        at: list(group)
        for at, group in groupby(enumerate(command.media), key=lambda one: one[1].at)
    }
    for end in sorted({*command.cuts, *media, len(text)}):
        piece = text[start:end]
        if isinstance(command, Question):
            prompt.tokens += vocabulary.tokenize(piece, parse_special=True)
        elif not prompt.tokens and start == 0:
            prompt.tokens += vocabulary.prompt_tokens(
                piece, parse_special=command.parse_special, add_bos=command.add_bos
            )
        else:
            prompt.tokens += vocabulary.tokenize(piece, parse_special=command.parse_special)
        for number, one in media.get(end, ()):
            prompt.add(one, number, projector)
        start = end
    return prompt
