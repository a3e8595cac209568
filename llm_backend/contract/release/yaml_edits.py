"""Edits of YAML text that keep its comments, anchors and layout: the text is spliced, not dumped.

Positions come from the composed nodes; edits are collected and applied from the end of the text.
"""

from collections.abc import Callable, Iterator

import yaml


class YamlEdits:
    """Collected edits of one YAML text."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._starts = [0]
        for line in text.splitlines(keepends=True):
            self._starts.append(self._starts[-1] + len(line))
        self._edits: dict[tuple[int, int], str] = {}
        self.root: yaml.Node = yaml.compose(text, Loader=yaml.SafeLoader) or yaml.MappingNode(
            "", []
        )

    def replace_scalar(self, node: yaml.Node, value: str) -> None:
        """Replaces the text of a plain scalar."""
        self._edits[self._index(node.start_mark), self._index(node.end_mark)] = value

    def remove_item(self, node: yaml.Node) -> None:
        """Removes an item of a block sequence, with its dash."""
        self._remove_lines(node.start_mark.line, node.end_mark)

    def remove_entries(
        self, mapping: yaml.MappingNode, is_wanted: Callable[[yaml.Node, yaml.Node], bool]
    ) -> None:
        """Removes the entries of a mapping for which `is_wanted(key, value)` is False. If none
        remains, the mapping becomes `{}`."""
        is_removed = [not is_wanted(key, value) for key, value in mapping.value]
        if all(is_removed):
            end = self._index(mapping.end_mark)
            if not mapping.flow_style:
                end = self._starts[self._last_line(mapping.end_mark) + 1] - 1
            self._edits[self._index(mapping.start_mark), end] = "{}"
            return
        for index, (key, value) in enumerate(mapping.value):
            if not is_removed[index]:
                continue
            if not mapping.flow_style:
                self._remove_lines(key.start_mark.line, value.end_mark)
            elif any(not each for each in is_removed[:index]):
                before = self._index(mapping.value[index - 1][1].end_mark)
                self._edits[before, self._index(value.end_mark)] = ""
            else:
                following = self._index(mapping.value[index + 1][0].start_mark)
                self._edits[self._index(key.start_mark), following] = ""

    def text(self) -> str:
        """Returns the edited text. An edit within a removed part has no effect."""
        pieces, done = [], 0
        for (start, end), value in sorted(
            self._edits.items(), key=lambda one: (one[0][0], -one[0][1])
        ):
            if start >= done:
                pieces += [self._text[done:start], value]
                done = end
        return "".join([*pieces, self._text[done:]])

    @staticmethod
    def mappings_of(root: yaml.Node) -> Iterator[yaml.MappingNode]:
        """Yields every mapping within a node."""
        waiting = [root]
        while waiting:
            node = waiting.pop()
            if isinstance(node, yaml.MappingNode):
                yield node
                waiting += [value for _, value in node.value]
            elif isinstance(node, yaml.SequenceNode):
                waiting += node.value

    def _index(self, mark: yaml.Mark) -> int:
        return self._starts[mark.line] + mark.column

    def _remove_lines(self, first: int, end: yaml.Mark) -> None:
        self._edits[self._starts[first], self._starts[self._last_line(end) + 1]] = ""

    def _last_line(self, end: yaml.Mark) -> int:
        """Returns the last line of a block that ends at a mark, without the comments and empty
        lines that follow the block."""
        last = end.line if end.column else end.line - 1
        lines = self._text.splitlines()
        if end.column and not lines[end.line][: end.column].strip(" -"):
            last -= 1  # the end mark of a block is at the next token
        while last > 0 and (not lines[last].strip() or lines[last].lstrip().startswith("#")):
            last -= 1
        return last
