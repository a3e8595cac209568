"""A model that says what a test wrote down."""

import asyncio
import types

from llm_backend.backends.base import ChatDelta, ModelCard, Usage
from llm_backend.contract import load_document
from llm_backend.contract.validation import Validators
from llm_backend.controllers.services.listed_items import ListedItems

LISTED_ITEMS = ListedItems(Validators(load_document()))


class Answer:
    """Says what it was given."""

    def __init__(self, *deltas, tokens=5, before_the_last=None) -> None:
        self._deltas = deltas
        self._before_the_last = before_the_last or asyncio.sleep
        self.usage = Usage(prompt_tokens=10, completion_tokens=tokens)
        self.closed = 0
        self.began = asyncio.Event()

    async def wait_begun(self):
        """Returns once all deltas but the last are out; one that never begins fails the test."""
        async with asyncio.timeout(60):
            await self.began.wait()

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        self.closed += 1

    async def chat_deltas(self, _chat):
        for delta in self._deltas[:-1]:
            yield delta
        self.began.set()
        await self._before_the_last(0)
        yield self._deltas[-1]


class Model:
    """Answers once with each. A message is as many tokens as its content has characters."""

    card = ModelCard(id="m", created_at=1, owned_by="test")
    context_tokens = 1000
    vector_stores = ()
    accepts_images = False
    meter = None

    def __init__(self, *answers) -> None:
        self.answers, self.asked = list(answers), []

    def with_meter(self, meter):
        self.meter = meter
        return self

    def with_defaults(self, body):
        return body

    async def load_context_tokens(self):
        return self.context_tokens

    async def count_prompt_tokens(self, chat):
        return sum(len(message["content"] or "") for message in chat.messages)

    async def chat(self, chat):
        self.asked.append(chat)
        answer = self.answers[len(self.asked) - 1]
        if isinstance(answer, Exception):
            raise answer
        return answer


def saying(text="It is 42."):
    return Answer(ChatDelta(choice=0, content=text), ChatDelta(choice=0, finish_reason="stop"))


async def forever(_seconds) -> None:
    """Never returns."""
    await asyncio.Event().wait()


def settings(**fields):
    """Settings that a response reads."""
    usual = {
        "choices_limit": 1, "schema_nodes_limit": 1000,
        "schema_patterns_limit_bytes": 100_000, "tool_calls_limit": 32, "prompts": {},
        "structured_tries": 1,
        "obfuscate_streams": False,
        "input_files_limit": 64, "fetched_kept_bytes": 0, "moderation_model": None,
        "passages_limit": 20,
    }  # fmt: skip
    return types.SimpleNamespace(**usual | fields)


class NoFiles:
    """Stands for the texts of files where there are none."""

    async def read(self, items, where=None, fetched=None):
        return list(items)
