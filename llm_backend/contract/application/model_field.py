"""Field `model` that is put into the JSON object of a body while the body arrives."""

import json


class ModelField:
    """The first field of one object. `size_bytes` is what it adds to the body's length.

    A body that is not an object stays as it is.
    """

    def __init__(self, model: str) -> None:
        self._field = f'"model": {json.dumps(model)}'.encode()
        self._has_begun = False
        self._needs_separator = False
        self.size_bytes = len(self._field) + len(", ")

    def insert_into(self, piece: bytes) -> bytes:
        """Returns the next piece of the body, with the parts of the field that belong there."""
        head = b""
        text = piece.lstrip()
        if text and not self._has_begun:
            self._has_begun = True
            if text.startswith(b"{"):
                self._needs_separator = True
                end = len(piece) - len(text) + 1
                head, piece = piece[:end] + self._field, piece[end:]
                text = piece.lstrip()
        if text and self._needs_separator:
            self._needs_separator = False
            # No comma may precede the end of an object; blanks keep the announced length.
            head += b"  " if text.startswith(b"}") else b", "
        return head + piece
