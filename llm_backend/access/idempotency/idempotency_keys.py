"""`Idempotency-Key`: a repeated request gets the stored answer of the first one."""

import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable

from starlette.types import Send

from llm_backend.access.authentication.principal import Caller
from llm_backend.access.idempotency.recorded_answer import AnswerRecorder, RecordedAnswer, replay
from llm_backend.access.idempotency.shared_answers import SharedAnswers
from llm_backend.contract.application.connexion_app import Admission, SendResponse
from llm_backend.contract.client_disconnect import cancel_on_disconnect
from llm_backend.contract.request import ApiRequest
from llm_backend.errors import Conflict, InvalidRequest
from llm_backend.offload import offload

KEY = "idempotency-key"
KEY_CHARACTERS = 255
MEMORY_LIMIT_BYTES = 64 * 1024 * 1024
_OPERATIONS_WITH_SECRETS = frozenset(
    {
        "CancelChatSessionMethod",
        "CreateChatSessionMethod",
        "create-realtime-client-secret",
        "create-realtime-session",
        "create-realtime-transcription-session",
        "create-realtime-translation-client-secret",
        "createWebhookEndpoint",
        "rotateWebhookEndpointSecret",
    }
)

Id = tuple[str | None, str, tuple[tuple[str, str], ...], bytes, str]


class Idempotency:
    """Wraps admission control: a request with the same key and the same JSON body gets the bytes of
    the first answer for an hour. While the first answer is being made, the second request waits for
    it.

    Keys belong to one caller and one operation, with its path and query. Answers are stored in this
    process's memory, and in the database if `shared` answers are given. Both are bounded, and the
    oldest answer is evicted first. Some answers are not stored: errors of this server, answers of
    an upstream that a retry may change, answers whose client disconnected, and answers to a project
    without data retention. Answers that may contain a secret (administration, webhook endpoints,
    client secrets) are not stored either: a secret is shown only once.
    """

    def __init__(
        self,
        admission: Admission,
        shared: SharedAnswers | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._admission = admission
        self._shared = shared
        self._clock = clock
        self._recorded: OrderedDict[Id, RecordedAnswer] = OrderedDict()
        self._bytes = 0

    async def __call__(self, request: ApiRequest, answer: SendResponse, send: Send) -> None:
        """Sends the stored answer or a new one. Raises `Conflict` if the key belongs to another
        request, and `InvalidRequest` for a key that is too long."""
        key = request.http.headers.get(KEY)
        is_storable = request.http.method == "POST" and not _shows_secret(request)
        is_storable = is_storable and not (request.caller and request.caller.has_zero_retention)
        if not key or not is_storable or not request.raw_body:
            await self._admission(request, answer, send)
            return
        if len(key) > KEY_CHARACTERS:
            raise InvalidRequest(
                f"The key is longer than {KEY_CHARACTERS} characters.", param="Idempotency-Key"
            )
        await self._answer(_id(request, key), request, answer, send)

    async def _answer(
        self, name: Id, request: ApiRequest, answer: SendResponse, send: Send
    ) -> None:
        digest = await offload(_digest, request.raw_body)
        while (recorded := self._find(name)) is not None:
            if recorded.digest != digest:
                raise _key_reused_error()
            if recorded.ended.is_set():
                await replay(recorded, send)
                return
            await cancel_on_disconnect(request, recorded.ended.wait())
        await self._record(name, RecordedAnswer(digest=digest), request, answer, send)

    async def _record(
        self,
        name: Id,
        recorded: RecordedAnswer,
        request: ApiRequest,
        answer: SendResponse,
        send: Send,
    ) -> None:
        self._recorded[name] = recorded
        is_whole = False
        try:
            if self._shared is None:
                is_whole = await self._record_answer(recorded, request, answer, send)
            else:
                is_whole = await self._answer_shared(
                    self._shared, name, recorded, request, answer, send
                )
        finally:
            if is_whole:
                self._store(recorded)
            elif self._recorded.get(name) is recorded:
                del self._recorded[name]
            recorded.ended.set()

    async def _record_answer(
        self, recorded: RecordedAnswer, request: ApiRequest, answer: SendResponse, send: Send
    ) -> bool:
        """Sends a new answer. Returns True if it may be stored: complete, and with a status that
        is final."""
        recorder = AnswerRecorder(recorded, send)
        await self._admission(request, answer, recorder)
        return recorder.is_whole

    async def _answer_shared(
        self,
        shared: SharedAnswers,
        name: Id,
        recorded: RecordedAnswer,
        request: ApiRequest,
        answer: SendResponse,
        send: Send,
    ) -> bool:
        shared_name, digest = hashlib.sha256(repr(name).encode()).hexdigest(), recorded.digest.hex()
        found = await cancel_on_disconnect(request, shared.claim(shared_name, digest))
        if found is not None:
            if found.digest != digest or found.answer is None:
                raise _key_reused_error()
            recorded.set_stored_answer(found.answer, shared.remaining_s(found))
            await replay(recorded, send)
            return True
        is_whole = False
        try:
            is_whole = await self._record_answer(recorded, request, answer, send)
        finally:
            if is_whole:
                shared.store(shared_name, recorded.stored_answer)
            else:
                shared.free(shared_name)
        return is_whole

    def _find(self, name: Id) -> RecordedAnswer | None:
        recorded = self._recorded.get(name)
        if recorded is not None and recorded.ended.is_set() and self._clock() >= recorded.until_s:
            self._evict(name)
            return None
        return recorded

    def _store(self, recorded: RecordedAnswer) -> None:
        recorded.until_s = self._clock() + recorded.retention_s
        self._bytes += recorded.size_bytes
        while self._bytes > MEMORY_LIMIT_BYTES:
            self._evict(next(name for name, one in self._recorded.items() if one.ended.is_set()))

    def _evict(self, name: Id) -> None:
        self._bytes -= self._recorded.pop(name).size_bytes


def _shows_secret(request: ApiRequest) -> bool:
    """Returns True if the answer may hold a secret that is shown once."""
    operation = request.operation
    return operation.administers or operation.operation_id in _OPERATIONS_WITH_SECRETS


def _digest(body: bytes) -> bytes:
    return hashlib.sha256(body).digest()


def _id(request: ApiRequest, key: str) -> Id:
    caller: Caller | None = request.caller
    return (
        caller.key_id if caller else None,
        request.operation.operation_id,
        tuple(sorted(request.path.items())),
        request.http.scope["query_string"],
        key,
    )


def _key_reused_error() -> Conflict:
    return Conflict(
        "This idempotency key was used for another request; use a new one for each.",
        param="Idempotency-Key",
        code="idempotency_key_reused",
    )
