"""What every request that asks a model passes: it is counted, with what it uses."""

from starlette.types import Message, Send

from llm_backend.access.caller import Caller
from llm_backend.access.ledger import Ledger
from llm_backend.access.meter import METER, Meter
from llm_backend.access.metered_operations import METERED, Metered, model_of
from llm_backend.access.spending import Spending
from llm_backend.access.told_usage import Tail
from llm_backend.contract.connexion_app import Answer
from llm_backend.contract.request import Request

__all__ = ["Gate"]


class Gate:
    """Lets requests through; all that ask no model as they come."""

    def __init__(self, ledger: Ledger, spending: Spending) -> None:
        self._ledger = ledger
        self._spending = spending

    async def __call__(self, request: Request, answer: Answer, send: Send) -> None:
        """Sends the answer, and counts it when it has ended."""
        metered = METERED.get(request.operation.operation_id)
        if metered is None:
            await answer(send)
            return
        caller: Caller = request.caller
        if caller.project is not None:
            self._spending.check(caller.project)
        meter = self._meter(request, metered)
        watched = _Watched(send)
        before = METER.set(meter)
        try:
            await answer(watched)
        finally:
            METER.reset(before)
            watched.count(meter, request, metered)

    def _meter(self, request: Request, metered: Metered) -> Meter:
        caller: Caller = request.caller
        body = request.body if isinstance(request.body, dict) else {}
        tier = body.get("service_tier")
        return Meter(
            self._ledger,
            caller,
            kind=metered.kind,
            model=model_of(request),
            service_tier=tier if isinstance(tier, str) and tier != "auto" else "default",
            is_batch=bool(request.http.scope["state"].get("is_batch")),
            detail=metered.detail(request),
        )


class _Watched:
    """Passes an answer on, and remembers its status and its end."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._status = 0
        self._tail: Tail | None = None

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._status = message["status"]
            self._tail = Tail(_coding(message))
        elif self._tail is not None and (body := message.get("body")):
            self._tail.feed(body)
        await self._send(message)

    def count(self, meter: Meter, request: Request, metered: Metered) -> None:
        """Counts an answer that was good, with the tokens that an upstream tells at its end; a
        local model has counted its own."""
        if not 200 <= self._status < 300:
            return
        if meter.tokens is None and self._tail and (told := self._tail.usage()):
            meter.used(
                input_tokens=told.input_tokens,
                cached_tokens=told.cached_tokens,
                output_tokens=told.output_tokens,
            )
        body = request.body if isinstance(request.body, dict) else {}
        meter.answered(metered.units(body))


def _coding(start: Message) -> bytes | None:
    return next((value for name, value in start["headers"] if name == b"content-encoding"), None)
