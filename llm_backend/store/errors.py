"""Everything that can go wrong in the store, without a word of SQLAlchemy.

    StoreError
    |- StoreUnavailable   the database cannot be used now; asking again later may help
    |  |- StoreLocked     another process or transaction held a lock for too long
    |  |  `- StoreDeadlock   two transactions waited for each other; this one was given up
    |  |- StoreFull       no room left on the disk
    |  `- ObjectsUnavailable   the object store cannot be used now
    |- CannotOpen         this database can never be used as things stand; a person must act
    |  |- UnknownSchema   written by a newer program, or by another one
    |  `- OldSchema       written by an older program, and not migrated yet
    |- Missing            no such object
    |- UnknownCursor      `after` names no object
    |- Duplicate          the id is taken
    |- UploadClosed       the upload is completed, cancelled or expired
    |- UploadFull         it has as many parts or bytes as it may
    |- BadParts           these parts do not make the upload
    |- WrongDigest        the bytes are not those that the client means
    |- Unfinished         the response has not ended yet
    |- NotSaid            its conversation does not hold what the response has said
    |- QueueFull          so many are waiting already that no more is taken in
    |- BatchEnded         the batch has come to its end
    |- FileInUse          a batch that has not ended reads the file
    |- Expired            its time is over: it takes nothing in any more
    |- FilesFull          files and uploads have as many bytes as they may
    |- AttributesChanged  a file has been described anew while it was taken in
    |- LeaseLost          somebody else has taken the job up, or it has been removed
    |- BlobGone           written too slowly: its bytes have been given up meanwhile
    `- Unstorable         a value that no column can hold

Whoever answers a client translates them: a full or locked database is load (503), a missing object
is 404, an unknown cursor is 400.
"""

from collections.abc import Mapping

__all__ = [
    "AttributesChanged",
    "BadParts",
    "BatchEnded",
    "BlobGone",
    "CannotOpen",
    "Duplicate",
    "Expired",
    "FileInUse",
    "FilesFull",
    "LeaseLost",
    "Missing",
    "NotSaid",
    "ObjectsUnavailable",
    "OldSchema",
    "QueueFull",
    "StoreDeadlock",
    "StoreError",
    "StoreFull",
    "StoreLocked",
    "StoreUnavailable",
    "Unfinished",
    "UnknownCursor",
    "UnknownSchema",
    "Unstorable",
    "UploadClosed",
    "UploadFull",
    "WrongDigest",
]


class StoreError(Exception):
    """The root; its text is a sentence for the person who must act."""


class StoreUnavailable(StoreError):
    """The database cannot be reached, read or written now; nothing of this work was done."""


class StoreLocked(StoreUnavailable):
    """A lock was not given within the time allowed."""


class StoreDeadlock(StoreLocked):
    """Two transactions waited for each other, and the database gave this one up."""


class StoreFull(StoreUnavailable):
    """The disk has no room; nothing of this work was written."""


class ObjectsUnavailable(StoreUnavailable):
    """The object store cannot be reached, or does not hold what it should."""


class CannotOpen(StoreError):
    """The URL, the driver or the file is wrong; found at start, never while serving."""


class UnknownSchema(CannotOpen):
    """The tables are at a revision that this program does not know."""


class OldSchema(CannotOpen):
    """The tables are at an earlier revision; `migrate` brings them up."""


class Missing(StoreError):
    """No object has this id."""

    def __init__(self, id: str) -> None:
        super().__init__(f"Nothing is stored under the id `{id}`.")
        self.id = id


class UnknownCursor(StoreError):
    """`after`, or another parameter, names an object that does not exist in this list."""

    def __init__(self, id: str, parameter: str = "after") -> None:
        super().__init__(f"`{parameter}` names `{id}`, which does not exist.")
        self.id = id
        self.parameter = parameter


class Duplicate(StoreError):
    """An object with this id is stored already."""

    def __init__(self, id: str) -> None:
        super().__init__(f"An object with the id `{id}` is stored already.")
        self.id = id


class UploadClosed(StoreError):
    """The upload has come to its end, in the state `status`."""

    def __init__(self, id: str, status: str) -> None:
        super().__init__(f"The upload `{id}` is {status}.")
        self.status = status


class UploadFull(StoreError):
    """One more part would be over a bound."""


class BadParts(StoreError):
    """A part that the upload does not have, or sizes that do not add up."""


class WrongDigest(StoreError):
    """The bytes are not those that the client means."""


class Unfinished(StoreError):
    """The response is queued or in progress: nothing can go on from it yet."""

    def __init__(self, id: str) -> None:
        super().__init__(f"The response `{id}` has not ended yet.")
        self.id = id


class NotSaid(StoreError):
    """The response was one of a conversation that does not hold its items: it failed or was
    cancelled, or they have been taken out."""

    def __init__(self, id: str, conversation_id: str) -> None:
        super().__init__(
            f"Nothing of the response `{id}` is in its conversation: go on from the conversation "
            f"`{conversation_id}`."
        )
        self.id = id


class BatchEnded(StoreError):
    """The batch has come to its end, in the state `status`."""

    def __init__(self, id: str, status: str) -> None:
        super().__init__(f"The batch `{id}` is {status}.")
        self.status = status


class FileInUse(StoreError):
    """A batch that has not ended reads this file."""

    def __init__(self, id: str, batch_id: str) -> None:
        super().__init__(
            f"The file `{id}` is the input of the batch `{batch_id}`, which has not ended: "
            "cancel it first, or wait."
        )


class Expired(StoreError):
    """A vector store whose time is over, which takes nothing in any more."""

    def __init__(self, id: str) -> None:
        super().__init__(f"The vector store `{id}` has expired.")


class FilesFull(StoreError):
    """One more would be over the bound of all files and uploads together."""

    def __init__(self, limit_bytes: int) -> None:
        super().__init__(
            f"This server keeps at most {limit_bytes} bytes of files, and they are used up: "
            "delete some that you do not need any more."
        )


class QueueFull(StoreError):
    """As many responses as may are waiting to be answered."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"{limit} responses wait to be answered already; try again later.")


class AttributesChanged(StoreError):
    """A file has been given other `attributes` while it was taken in."""

    def __init__(self, attributes: Mapping[str, str | float | bool]) -> None:
        super().__init__("The file has other attributes now.")
        self.attributes = attributes


class LeaseLost(StoreError):
    """Whoever asks does not hold the job about `subject`: another has it, or it is removed."""

    def __init__(self, subject: str) -> None:
        super().__init__(f"The job about `{subject}` is not held any more.")
        self.subject = subject


class BlobGone(StoreError):
    """Nobody took these bytes up in time, and they have been given up."""

    def __init__(self, key: str) -> None:
        super().__init__(f"The bytes written as `{key}` were not taken up in time.")
        self.key = key


class Unstorable(StoreError):
    """A value that no column can hold: a NUL byte or half a character in an indexed text, say."""
