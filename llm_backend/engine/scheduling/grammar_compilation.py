"""Requests whose grammar is in the making."""

from concurrent.futures import Future, wait

from llm_backend.engine.sampling.constraint import CompiledGrammar, Grammars
from llm_backend.engine.scheduling.generation_request import GenerationRequest

__all__ = ["GrammarCompilation"]


class GrammarCompilation:
    """Who waits for a grammar. Grammars are compiled one after the other, beside the passes; one
    that nobody waits for any longer is not begun."""

    def __init__(self, grammars: Grammars) -> None:
        self._grammars = grammars
        self._waiting: dict[GenerationRequest, tuple[str, Future[CompiledGrammar]]] = {}

    @property
    def is_empty(self) -> bool:
        """Whether nobody waits."""
        return not self._waiting

    def __contains__(self, request: GenerationRequest) -> bool:
        return request in self._waiting

    def add(self, request: GenerationRequest, grammar: str) -> None:
        """Let a request wait for its grammar."""
        self._waiting[request] = (grammar, self._grammars.compile(grammar))

    def remove(self, request: GenerationRequest) -> None:
        """The request waits no longer, if it did."""
        grammar, future = self._waiting.pop(request, (None, None))
        if grammar is None or future is None:
            return
        if all(other is not future for _, other in self._waiting.values()):
            self._grammars.give_up(grammar, future)

    def rest(self, seconds: float) -> None:
        """Wait until a grammar is ready, but no longer than so long."""
        wait([future for _, future in self._waiting.values()], seconds, "FIRST_COMPLETED")

    def take_ready(self) -> list[tuple[GenerationRequest, Future[CompiledGrammar]]]:
        """Those whose grammar is ready, or found to be none: they wait no longer."""
        ready = [(one, future) for one, (_, future) in self._waiting.items() if future.done()]
        for request, _ in ready:
            del self._waiting[request]
        return ready
