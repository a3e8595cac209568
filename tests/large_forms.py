"""The largest forms that operations take, and forms that are larger than they take."""

from collections.abc import Callable, Collection, Mapping, Sequence

TYPE = "multipart/form-data; boundary=large"
SCALE = 1.0  # of the counts below, for small forms of the same shapes
PARTS = 100  # in one form
FIELD_BYTES = 64 * 1024
_MIB = b"\0" * 1024 * 1024
_FILE_MIB = 511  # a little less than `upload_limit_bytes` of a whole form
_FILE_MIB_OF = {
    "addUploadPart": 64, "createImageEdit": 20, "createImageVariation": 20, "createVoice": 10,
    "createVoiceConsent": 10,
}  # fmt: skip

Pieces = Sequence[bytes]


def forms(
    operation_id: str, files: Collection[str], fields: Mapping[str, str]
) -> dict[str, Callable[[], Pieces]]:
    """Returns the forms of an operation, each by its shape: with these fields, the model the last,
    as a form that may be answered here is stored until it is named, and a file of each name."""

    def form(*others: bytes, file: Pieces = (b"a",), filename: str = "a.txt") -> Pieces:
        pieces: list[bytes] = []
        for name in files:
            pieces += [_head(name, filename), *file, b"\r\n"]
        pieces += others
        for name in sorted(fields, key=lambda name: name == "model"):
            pieces += [_head(name), fields[name].encode(), b"\r\n"]
        return [*pieces, b"--large--\r\n"]

    def few() -> int:
        return PARTS - len(files) - len(fields)

    empty, largest = _field(b""), _field(b"a" * FIELD_BYTES)
    return {
        "the largest file": lambda: form(
            file=[_MIB] * _count(_FILE_MIB_OF.get(operation_id, _FILE_MIB))
        ),
        "the most parts": lambda: form(*[empty] * few()),
        "more parts than accepted": lambda: form(*[empty] * _count(400_000)),
        "the longest field": lambda: form(largest),
        "many of the longest fields": lambda: form(*[largest] * few()),
        "a longer field than accepted": lambda: form(_field(b"a" * _count(30_000_000))),
        "the longest file name": lambda: form(filename="a" * 512),
        "a longer file name than accepted": lambda: form(filename="a" * _count(30_000_000)),
        "a file of line ends": lambda: form(file=[b"\r\n--larg" * _count(4_000_000)]),
    }


def _count(largest: int) -> int:
    return max(1, int(largest * SCALE))


def _head(name: str, filename: str | None = None) -> bytes:
    named = "" if filename is None else f'; filename="{filename}"'
    return f'--large\r\ncontent-disposition: form-data; name="{name}"{named}\r\n\r\n'.encode()


def _field(value: bytes) -> bytes:
    return _head("vendor") + value + b"\r\n"
