"""Translation of store errors to API errors. Other modules translate only single errors that need
another answer there, such as a missing file of a batch."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from llm_backend import errors
from llm_backend.store import (
    BadParts,
    BatchEnded,
    BlobGone,
    ConsentInUse,
    EndpointsFull,
    Expired,
    FileInUse,
    FilesFull,
    MetadataChanged,
    Missing,
    ObjectMissing,
    ObjectsUnavailable,
    OldSchema,
    QueueFull,
    ResponseNotInConversation,
    SecretsFull,
    StoreError,
    StoreFull,
    StoreUnavailable,
    Unfinished,
    UnknownCursor,
    UnknownSchema,
    Unstorable,
    UploadClosed,
    UploadFull,
    VoicesFull,
    WrongDigest,
)

log = logging.getLogger(__name__)


# Field of the error message, for errors that only one field can cause.
_FIELDS: Mapping[type[StoreError], str] = {
    BadParts: "part_ids",
    WrongDigest: "md5",
}

_REFUSED = (BadParts, WrongDigest, Expired, EndpointsFull, VoicesFull)
_CONFLICTS = (
    UploadClosed, Unfinished, ResponseNotInConversation, BatchEnded, FileInUse, ConsentInUse,
    MetadataChanged,
)  # fmt: skip


@contextmanager
def translate_store_errors(
    kind: str = "object", *, event: str = "database_unavailable", **log_fields: str
) -> Iterator[None]:
    """Raises an `ApiError` for a store error inside the block; `kind` is the kind of object.

    The reason of a database failure is only logged, as `event` with `log_fields`: it may name hosts
    and users.
    """
    try:
        yield
    except Missing as error:
        raise errors.NotFound(f"No {kind} has the id `{error.id}`.") from error
    except (*_REFUSED, UnknownCursor, Unstorable) as error:
        raise errors.InvalidRequest(str(error), param=_field_of(error)) from error
    except _CONFLICTS as error:
        raise errors.Conflict(str(error)) from error
    except UploadFull as error:
        raise errors.TooLarge(str(error), param="data") from error
    except FilesFull as error:
        raise errors.TooLarge(str(error), code="storage_full") from error
    except (QueueFull, SecretsFull) as error:
        is_full = isinstance(error, QueueFull)
        error_type = errors.ServiceUnavailable if is_full else errors.LimitReached
        raise error_type(str(error), retry_after_s=errors.RETRY_AFTER_S) from error
    except BlobGone as error:
        raise errors.ServiceUnavailable(
            "The bytes came too slowly and have been deleted; send them again."
        ) from error
    except (ObjectMissing, ObjectsUnavailable) as error:
        raise _object_error(error, kind, log_fields) from error
    except (StoreUnavailable, UnknownSchema, OldSchema) as error:
        log.error(event, extra={**log_fields, "reason": str(error)})
        is_full = isinstance(error, StoreFull)
        reason = "has no space left on its disk" if is_full else "cannot be used now"
        raise errors.ServiceUnavailable(
            f"The database {reason}; try again later.", retry_after_s=errors.OUTAGE_RETRY_AFTER_S
        ) from error


def _object_error(
    error: ObjectMissing | ObjectsUnavailable, kind: str, log_fields: Mapping[str, str]
) -> errors.ApiError:
    is_missing = isinstance(error, ObjectMissing)
    event = "object_missing" if is_missing else "object_store_unavailable"
    log.error(event, extra={**log_fields, "reason": str(error)})
    if is_missing:
        return errors.ContentMissing(
            f"The bytes of this {kind} are missing on this server: delete it and send it again."
        )
    return errors.ServiceUnavailable(
        "The object store cannot be used now; try again later.",
        retry_after_s=errors.OUTAGE_RETRY_AFTER_S,
    )


def _field_of(error: StoreError) -> str | None:
    return error.parameter if isinstance(error, UnknownCursor) else _FIELDS.get(type(error))
