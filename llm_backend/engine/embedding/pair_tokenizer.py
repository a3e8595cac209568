"""A query and a document as one input, in the form that a rerank model was trained on."""

import re
from collections.abc import Iterable, Iterator

from llm_backend.engine.model import Vocabulary

_PLACEHOLDERS = re.compile(r"\{query\}|\{document\}")


class PairTokenizer:
    """Tokenizes pairs of a query and a document. They are put into the model's template at
    `{query}` and `{document}` or, without a template, between special tokens of the vocabulary.
    Special tokens are recognised in a template, but not in the texts."""

    def __init__(self, vocabulary: Vocabulary, template: str | None) -> None:
        self._vocabulary = vocabulary
        self._template = None if template is None else _parts(template, vocabulary)

    def tokens(self, query: str, documents: Iterable[str]) -> Iterator[list[int]]:
        """Tokenizes the query with each document."""
        if self._template is None:
            return self._frame_pairs(query, documents)
        return (self._fill_template(self._template, query, document) for document in documents)

    def _frame_pairs(self, query: str, documents: Iterable[str]) -> Iterator[list[int]]:
        frame = self._vocabulary.pair_frame
        head = [*frame.before, *self._text(query), *frame.between]
        for document in documents:
            yield [*head, *self._text(document), *frame.after]

    def _fill_template(self, template: list[int | str], query: str, document: str) -> list[int]:
        texts = {"{query}": query, "{document}": document}
        tokens: list[int] = []
        for part in template:
            if isinstance(part, int):
                tokens.append(part)
            else:
                tokens += self._text(_PLACEHOLDERS.sub(lambda match: texts[match[0]], part))
        return tokens

    def _text(self, text: str) -> list[int]:
        return self._vocabulary.tokenize(text, parse_special=False)


def _parts(template: str, vocabulary: Vocabulary) -> list[int | str]:
    """Splits the template at its special tokens. A tokenizer splits there, too, so the tokens stay
    the same."""
    labels = {
        vocabulary.token_bytes(token).decode(errors="replace"): token
        for token in vocabulary.markers
    }
    found = sorted((label for label in labels if label and label in template), key=len)
    if not found:
        return [template]
    longest_first = "|".join(map(re.escape, reversed(found)))
    pieces = re.split(f"({longest_first})", template)
    return [labels.get(piece, piece) for piece in pieces if piece]
