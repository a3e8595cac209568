"""Edits of YAML text that keep its comments, anchors and form: the text is spliced, not dumped.

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
        """Writes another text in the place of a plain scalar."""
        self._edits[self._index(node.start_mark), self._index(node.end_mark)] = value

    def remove_item(self, node: yaml.Node) -> None:
        """Removes an item of a block sequence, with its dash."""
        self._remove_lines(node.start_mark.line, node.end_mark)

    def remove_entries(
        self, mapping: yaml.MappingNode, is_wanted: Callable[[yaml.Node, yaml.Node], bool]
    ) -> bool:
        """Removes the entries of a mapping for which `is_wanted(key, value)` is false; true if none
        remains, and the mapping itself has to be removed by the caller."""
        gone = [not is_wanted(key, value) for key, value in mapping.value]
        if all(gone):
            return True
        for place, (key, value) in enumerate(mapping.value):
            if not gone[place]:
                continue
            if not mapping.flow_style:
                self._remove_lines(key.start_mark.line, value.end_mark)
            elif any(not each for each in gone[:place]):
                before = self._index(mapping.value[place - 1][1].end_mark)
                self._edits[before, self._index(value.end_mark)] = ""
            else:
                following = self._index(mapping.value[place + 1][0].start_mark)
                self._edits[self._index(key.start_mark), following] = ""
        return False

    def text(self) -> str:
        """Returns the edited text."""
        text = self._text
        for (start, end), value in sorted(self._edits.items(), reverse=True):
            text = text[:start] + value + text[end:]
        return text

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
        """Removes lines up to a mark, but not comments and empty lines before it."""
        last = end.line if end.column else end.line - 1
        lines = self._text.splitlines()
        if end.column and not lines[end.line][: end.column].strip(" -"):
            last -= 1  # the mark of a block is at the next token
        while last > first and (not lines[last].strip() or lines[last].lstrip().startswith("#")):
            last -= 1
        self._edits[self._starts[first], self._starts[last + 1]] = ""
