"""Requests that wait for the compilation of their grammars."""

from concurrent.futures import Future, wait

from llm_backend.engine.sampling.constraint import CompiledGrammar, Grammars
from llm_backend.engine.scheduling.generation_request import GenerationRequest


class GrammarCompilation:
    """Requests that wait for a grammar. Grammars are compiled one after the other, in parallel
    to the passes; compilation is not started for a grammar without waiting requests."""

    def __init__(self, grammars: Grammars) -> None:
        self._grammars = grammars
        self._waiting: dict[GenerationRequest, tuple[str, Future[CompiledGrammar]]] = {}

    @property
    def is_empty(self) -> bool:
        """True if no request waits for a grammar."""
        return not self._waiting

    def __contains__(self, request: object) -> bool:
        return request in self._waiting

    def add(self, request: GenerationRequest, grammar: str) -> None:
        """Compiles `grammar`, and lets a request wait for it."""
        self._waiting[request] = (grammar, self._grammars.compile(grammar))

    def remove(self, request: GenerationRequest) -> None:
        """Removes a request, if it waits; its grammar is given up unless another request waits
        for it."""
        grammar, future = self._waiting.pop(request, (None, None))
        if grammar is None or future is None:
            return
        if all(other is not future for _, other in self._waiting.values()):
            self._grammars.cancel(grammar, future)

    def wait(self, seconds: float) -> None:
        """Waits until a grammar is ready, at most `seconds`."""
        wait([future for _, future in self._waiting.values()], seconds, "FIRST_COMPLETED")

    def pop_ready(self) -> list[tuple[GenerationRequest, Future[CompiledGrammar]]]:
        """Removes and returns the requests whose compilation has ended, in success or in an
        error."""
        ready = [(one, future) for one, (_, future) in self._waiting.items() if future.done()]
        for request, _ in ready:
            del self._waiting[request]
        return ready
