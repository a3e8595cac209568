"""A GGUF file loaded by llama.cpp, for the tests of this folder."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from llama_cpp import Llama

BATCH_TOKENS = 512


class Embedder:
    """Text to token ids and vectors, by llama.cpp."""

    def __init__(self, llama: Llama) -> None:
        self._llama = llama

    def tokenize(self, text: str) -> list[int]:
        return self._llama.tokenize(text.encode(), add_bos=True, special=False)

    def embed(self, text: str) -> list[float]:
        return self._llama.embed(text, normalize=True)


@contextmanager
def embedder(path: Path) -> Iterator[Embedder]:
    llama = Llama(
        str(path),
        embedding=True,
        n_ctx=0,
        n_batch=BATCH_TOKENS,
        n_ubatch=BATCH_TOKENS,
        n_threads=2,
        verbose=False,
    )
    try:
        yield Embedder(llama)
    finally:
        llama.close()
