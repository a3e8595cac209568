"""Errors of the store, independent of SQLAlchemy.

    StoreError
    |- StoreUnavailable   the database cannot be used now; a retry may help
    |  |- StoreLocked     another process or transaction held a lock for too long
    |  |  `- StoreDeadlock   two transactions waited for each other; this one was rolled back
    |  |- StoreFull       the disk is full
    |  `- ObjectsUnavailable   the object store cannot be used now
    |- ObjectMissing      the object store lacks bytes that a row claims; no retry helps
    |- CannotOpen         this database cannot be used until a person acts
    |  |- UnknownSchema   written by a newer program, or by another one
    |  `- OldSchema       written by an older program, and not migrated yet
    |- Missing            no such object
    |- UnknownCursor      `after` names no object
    |- Duplicate          the id is taken
    |- UploadClosed       the upload is completed, cancelled or expired
    |- UploadFull         the upload has the maximum number of parts or bytes
    |- BadParts           the upload lacks a part, or the sizes do not add up
    |- WrongDigest        the bytes do not have the client's digest
    |- Unfinished         the response has not ended yet
    |- ResponseNotInConversation            its conversation does not contain the response
    |- QueueFull          the queue of background responses is full
    |- EndpointsFull      the project has the maximum number of webhook endpoints
    |- VoicesFull         the project has the maximum number of voices or consents
    |- ConsentInUse       a voice depends on the consent
    |- SecretsFull        the key has the maximum number of client secrets
    |- BatchEnded         the batch has ended
    |- FileInUse          a batch that has not ended reads the file
    |- Expired            the vector store has expired and takes no files, nor a new expiry
    |- FilesFull          files, uploads and voices have the maximum number of bytes
    |- AttributesChanged  the file's attributes were replaced during its ingestion
    |- MetadataChanged    the chat has other metadata than a change of them expects
    |- LeaseLost          another process has claimed the job, or it was removed
    |- BlobGone           the write took too long: the blob was deleted as an orphan
    `- Unstorable         a value that no column can store

Controllers translate them for clients: a full or locked database is load (503), a missing object is
404, an unknown cursor is 400.
"""

from collections.abc import Mapping

_QUOTED_CHARACTERS = 256  # characters of an id that an error quotes


class StoreError(Exception):
    """Base class of the store's errors; its text is a sentence for the person who must act."""


class StoreUnavailable(StoreError):
    """The database cannot be reached, read or written now; the transaction had no effect."""


class StoreLocked(StoreUnavailable):
    """A lock could not be acquired within the timeout."""


class StoreDeadlock(StoreLocked):
    """Two transactions waited for each other, and the database rolled this one back."""


class StoreFull(StoreUnavailable):
    """The disk is full; the transaction had no effect."""


class ObjectsUnavailable(StoreUnavailable):
    """The object store cannot be reached, read or written now."""


class ObjectMissing(StoreError):
    """The object store lacks an object that it should have, and no retry brings it back."""


class CannotOpen(StoreError):
    """The URL, the driver or the file is wrong; found at the start, never while serving."""


class UnknownSchema(CannotOpen):
    """The tables are at a revision that this program does not know."""


class OldSchema(CannotOpen):
    """The tables are at an earlier revision; `migrate` upgrades them."""


class Missing(StoreError):
    """No object has this id."""

    def __init__(self, id: str) -> None:
        self.id = id[:_QUOTED_CHARACTERS]
        super().__init__(f"Nothing is stored under the id `{self.id}`.")


class UnknownCursor(StoreError):
    """`after`, or another parameter, names an object that does not exist in this list."""

    def __init__(self, id: str, parameter: str = "after") -> None:
        self.id = id[:_QUOTED_CHARACTERS]
        super().__init__(f"`{parameter}` names `{self.id}`, which does not exist.")
        self.parameter = parameter


class Duplicate(StoreError):
    """An object with this id is stored already."""

    def __init__(self, id: str) -> None:
        super().__init__(f"An object with the id `{id[:_QUOTED_CHARACTERS]}` is stored already.")
        self.id = id


class UploadClosed(StoreError):
    """The upload has ended, in the state `status`."""

    def __init__(self, id: str, status: str) -> None:
        super().__init__(f"The upload `{id}` is {status}.")
        self.status = status


class UploadFull(StoreError):
    """One more part would exceed a limit of the upload."""


class BadParts(StoreError):
    """A part that the upload does not have, or sizes that do not add up to the file's."""


class WrongDigest(StoreError):
    """The bytes do not have the digest that the client sent."""


class Unfinished(StoreError):
    """The response is queued or in progress, so it cannot be continued yet."""

    def __init__(self, id: str) -> None:
        super().__init__(f"The response `{id}` has not ended yet.")
        self.id = id


class ResponseNotInConversation(StoreError):
    """The response belongs to a conversation that does not contain its items: it failed or was
    cancelled, or its items were deleted."""

    def __init__(self, id: str, conversation_id: str) -> None:
        super().__init__(
            f"Nothing of the response `{id}` is in its conversation: continue the conversation "
            f"`{conversation_id}`."
        )
        self.id = id


class BatchEnded(StoreError):
    """The batch has ended, in the state `status`."""

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
    """The vector store has expired: it takes no more files, and cannot be extended."""

    def __init__(self, id: str) -> None:
        super().__init__(f"The vector store `{id}` has expired.")


class FilesFull(StoreError):
    """One more file or part would exceed the common limit of files, uploads and voices."""

    def __init__(self, limit_bytes: int) -> None:
        super().__init__(
            f"This server keeps at most {limit_bytes} bytes of files, parts of uploads and audio "
            "of voices, and they are used up: delete some that are not needed any more."
        )


class QueueFull(StoreError):
    """The limit of background responses that have not ended is reached."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"{limit} responses wait to be answered already; try again later.")


class EndpointsFull(StoreError):
    """The project has the maximum number of webhook endpoints."""

    def __init__(self, limit: int) -> None:
        super().__init__(
            f"The project has {limit} webhook endpoints, as many as the setting "
            "`webhook_endpoints_limit` allows: delete one."
        )


class VoicesFull(StoreError):
    """The project has the maximum number of cloned voices or of recorded consents."""

    def __init__(self, limit: int) -> None:
        super().__init__(
            f"The project has {limit} voices or consents, as many as `voices_limit` allows: "
            "delete one."
        )


class ConsentInUse(StoreError):
    """A voice depends on this consent."""

    def __init__(self, id: str, voice_id: str) -> None:
        super().__init__(
            f"The voice `{voice_id}` depends on the consent `{id}`: delete the voice first."
        )


class SecretsFull(StoreError):
    """The key has the maximum number of client secrets."""

    def __init__(self, limit: int) -> None:
        super().__init__(
            f"This key has {limit} client secrets that have not expired, as many as the setting "
            "`realtime_client_secrets_limit` allows; try again later."
        )


class AttributesChanged(StoreError):
    """The file's `attributes` were replaced during its ingestion."""

    def __init__(self, attributes: Mapping[str, str | float | bool]) -> None:
        super().__init__("The file has other attributes now.")
        self.attributes = attributes


class MetadataChanged(StoreError):
    """The chat lacks pairs of metadata that a change of them expects."""

    def __init__(self, id: str) -> None:
        super().__init__(f"The chat completion `{id}` has other metadata now.")


class LeaseLost(StoreError):
    """The lease of the job about `subject` is lost: another process has claimed it, or it was
    removed."""

    def __init__(self, subject: str) -> None:
        super().__init__(
            f"Another process has claimed the job about `{subject}`, or it was removed."
        )
        self.subject = subject


class BlobGone(StoreError):
    """The blob was not claimed in time, and was deleted as an orphan."""

    def __init__(self, key: str) -> None:
        super().__init__(f"Writing `{key}` took too long: its bytes were deleted.")
        self.key = key


class Unstorable(StoreError):
    """A value that no column can store: a NUL byte or a lone surrogate in an indexed text, say."""
