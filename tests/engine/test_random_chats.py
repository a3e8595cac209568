"""Random chats that share prefixes, in real cells: each answer equals that of the chat alone."""

import random
from collections.abc import Iterator

import llama_cpp as native
import pytest

from llm_backend.engine.generator import Generator
from llm_backend.engine.kv_cache.host_prefix_cache import HostPrefixCache
from llm_backend.engine.llama import LlamaLog, LlamaModel
from llm_backend.engine.messages import Delta, Generate, LoadModel, Priority, Sampling
from llm_backend.engine.messages.address import Address
from tests.engine.fakes import Outbox, load_command

SLOTS, CHATS, LONGEST = 3, 8, 200


class Bench:
    """A generator over a model, and what it published."""

    def __init__(self, model: LlamaModel, config: LoadModel, host: HostPrefixCache | None) -> None:
        for slot in range(SLOTS):
            model.truncate(slot, 0)
        self.outbox = Outbox()
        self.generator = Generator(model, config, self.outbox, None, None, host)
        self._now = 0.0

    def submit(self, command: Generate) -> None:
        self.generator.submit(Address(1, command.id), command, self._now)

    def step(self) -> None:
        self._now += 0.01
        self.generator.step(self._now)

    def text(self, name: str) -> str | None:
        """The text of an answer that has ended, else None."""
        deltas = [one for one in self.outbox.events.get(name, ()) if isinstance(one, Delta)]
        if not deltas or deltas[-1].finish_reason is None:
            return None
        return "".join(one.text for one in deltas)


@pytest.fixture(
    params=[{}, {"mlock": True}, {"kv_unified": True}], ids=["lazy", "locked", "shared"]
)
def models(request, tiny_llama) -> Iterator[tuple[LoadModel, LlamaModel, LlamaModel]]:
    """A configuration, and two instances of its model."""
    config = load_command(
        model_path=tiny_llama, slots=SLOTS, context_tokens=256, batch_tokens=64,
        draft_tokens=8, **request.param,
    )  # fmt: skip
    log = LlamaLog()
    pair = LlamaModel(config, log), LlamaModel(config, log)
    for model in pair:
        model.verify()
    yield config, *pair
    for model in pair:
        native.llama_free(model.context)
        native.llama_model_free(model._model)


@pytest.mark.parametrize("seed", range(2))
def test_answers_beside_others_equal_those_alone(models, seed):
    config, model, alone = models
    host = HostPrefixCache(
        1 << 30, can_roll_back=True, machine_bytes=1 << 30, available_bytes=lambda: 1 << 40
    )
    bench, choose = Bench(model, config, host), random.Random(seed)
    systems = [tokens(choose, length) for length in (10, 70, 140)]
    chats, running, answered = [choose.choice(systems) for _ in range(CHATS)], {}, []
    while len(answered) < 80:
        for chat in choose.sample(range(CHATS), choose.choice((0, 0, 0, 1, 2, 3))):
            if chat in running or len(running) > 5:
                continue
            begin = chats[chat] if len(chats[chat]) < LONGEST else choose.choice(systems)
            command = Generate(
                id=f"{chat} {len(answered)}",
                prompt=begin + tokens(choose, choose.randrange(1, 25)),
                max_tokens=choose.randrange(1, 30),
                ignore_eos=True,
                priority=choose.choice(list(Priority)),
                sampling=Sampling(temperature=0),
            )
            running[chat] = command
            bench.submit(command)
        for _ in range(choose.randrange(1, 6)):
            bench.step()
        for chat, command in list(running.items()):
            if bench.text(command.id) is not None:
                answered.append(running.pop(chat))
                assert isinstance(command.prompt, list)
                chats[chat] = command.prompt

    assert host.restores > 10
    for command in answered:
        reference = Bench(alone, config, None)
        reference.submit(command)
        while reference.text(command.id) is None:
            reference.step()
        assert bench.text(command.id) == reference.text(command.id)


def tokens(choose: random.Random, count: int) -> list[int]:
    return [choose.randrange(10, 200) for _ in range(count)]
