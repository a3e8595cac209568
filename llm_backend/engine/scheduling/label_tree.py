"""Label tree: the tokens of a question's labels, computed once where labels begin alike. Pure.

A node is a beginning of one or more labels, as tokens after the `head`; its logits give the
logprobs of the next token of each of these labels. Labels of one token have one node, the root,
which has no tokens.
"""

from collections import abc
from dataclasses import dataclass
from itertools import pairwise

Node = tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class LabelPath:
    """A path from the root to a leaf. Nodes of fewer than `first` tokens belong to an earlier
    path, too, which reads their logits."""

    tokens: Node
    first: int


class LabelTree:
    """Tree of the labels of one question, each of one token or more, none of which begins with
    another. `head` are the tokens that all of them share at the start, never the last one of a
    label."""

    def __init__(self, labels: abc.Sequence[abc.Sequence[int]]) -> None:
        length = _common_length(labels)
        self.head: abc.Sequence[int] = labels[0][:length]
        self._labels = [tuple(label[length:]) for label in labels]
        next_tokens: dict[Node, dict[int, None]] = {}
        for label in self._labels:
            for end, token in enumerate(label):
                next_tokens.setdefault(label[:end], {})[token] = None
        self._next_tokens = {node: list(tokens) for node, tokens in next_tokens.items()}

    def next_tokens(self, node: Node) -> abc.Sequence[int]:
        """The tokens whose logprobs are read at a node."""
        return self._next_tokens[node]

    def paths(self) -> list[LabelPath]:
        """Paths that together cover all nodes; each node is read in one of them."""
        inner = {node[:-1] for node in self._next_tokens if node}
        seen: set[Node] = set()
        paths = []
        for leaf in self._next_tokens:
            if leaf in inner:
                continue
            nodes = [leaf[:end] for end in range(len(leaf) + 1)]
            first = next(end for end, node in enumerate(nodes) if node not in seen)
            paths.append(LabelPath(tokens=leaf, first=first))
            seen.update(nodes)
        return paths

    def label_logprobs(self, logprobs: dict[Node, dict[int, float]]) -> list[float]:
        """Logprob of each label, given those of the next tokens of each node."""
        return [
            sum(logprobs[label[:end]][token] for end, token in enumerate(label))
            for label in self._labels
        ]


def begins_with_another(labels: abc.Sequence[abc.Sequence[int]]) -> bool:
    """True if a label begins with another one, or equals it."""
    ordered = sorted(tuple(label) for label in labels)
    return any(longer[: len(shorter)] == shorter for shorter, longer in pairwise(ordered))


def _common_length(labels: abc.Sequence[abc.Sequence[int]]) -> int:
    """Number of tokens with which all labels begin, at most all but the last of each."""
    length = min(map(len, labels)) - 1
    first = labels[0]
    while any(list(label[:length]) != list(first[:length]) for label in labels):
        length -= 1
    return length
