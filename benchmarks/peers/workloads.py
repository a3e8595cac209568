"""Workloads of a server: streams with separate or shared prompts, prompts alone, and chats."""

import random
from dataclasses import dataclass
from typing import Any

__all__ = [
    "CHAT_TURNS",
    "NAMED",
    "RETURNING",
    "Returning",
    "Workload",
    "body",
    "chat_messages",
    "requests",
    "returning_messages",
]

# common English words: one token each, after a space, in the vocabularies that the models use
_COMMON = (
    "time people way day man thing woman life child world school state family student group "
    "country problem hand part place case week company system program question work government "
    "number night point home water room mother area money story fact month lot right study book "
    "eye job word business issue side kind head house service friend father power hour game line "
    "end member law car city community name president team minute idea kid body information back "
    "parent face others level office door health person art war history party result change "
    "morning reason research girl guy moment air teacher force education "
)
WORDS = tuple(_COMMON.split())
_TEMPLATE_TOKENS = 24  # about what the chat template adds to a prompt

Body = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Workload:
    """`streams` at once, `rounds` times, each with `prompt_words` of its own after a system prompt
    of `shared_words` that all of them have, and `new_tokens` to come.
    """

    name: str
    streams: int
    rounds: int = 1
    shared_words: int = 0
    prompt_words: int = 64
    new_tokens: int = 128


@dataclass(frozen=True, kw_only=True)
class Returning:
    """`chats` that come back for several `turns`, `concurrency` at once: each begins with
    `first_words`, and adds `turn_words` and `new_tokens` at every turn. All chats have had a turn
    before the first has its next.
    """

    name: str
    chats: int
    turns: int
    first_words: int
    concurrency: int = 4
    turn_words: int = 48
    new_tokens: int = 32


RETURNING = {
    work.name: work
    for work in (
        Returning(name="R24", chats=24, turns=4, first_words=450),
        Returning(name="R64", chats=64, turns=6, first_words=700),
    )
}
NAMED = {
    work.name: work
    for work in (
        Workload(name="W1", streams=1, rounds=3),
        *(
            Workload(name=f"W{streams}", streams=streams)
            for streams in (2, 4, 8, 16, 32, 64, 128, 256)
        ),
        *(
            Workload(
                name=f"S{streams}",
                streams=streams,
                shared_words=900,
                prompt_words=16,
                new_tokens=64,
            )
            for streams in (16, 64, 128)
        ),
        *(
            Workload(
                name=f"P{tokens}",
                streams=1,
                rounds=3,
                prompt_words=tokens - _TEMPLATE_TOKENS,
                new_tokens=1,
            )
            for tokens in (1000, 4000, 7100)
        ),
    )
}
CHAT_TURNS, CHAT_WORDS, CHAT_TOKENS = 6, 48, 48


def requests(work: Workload, dice: random.Random) -> list[list[Body]]:
    """The bodies of a run, round by round; the dice decide everything in them."""
    system = [_message("system", dice, work.shared_words)] if work.shared_words else []
    return [
        [
            body([*system, _message("user", dice, work.prompt_words)], work.new_tokens, dice)
            for _ in range(work.streams)
        ]
        for _ in range(work.rounds)
    ]


def chat_messages(dice: random.Random) -> list[Body]:
    """A chat's system prompt, and what its user says at each turn."""
    turns = [_message("user", dice, CHAT_WORDS) for _ in range(CHAT_TURNS)]
    return [_message("system", dice, 64), *turns]


def returning_messages(work: Returning, dice: random.Random) -> list[Body]:
    """The user's messages of one returning chat."""
    words = [work.first_words, *[work.turn_words] * (work.turns - 1)]
    return [_message("user", dice, count) for count in words]


def body(messages: list[Body], new_tokens: int, dice: random.Random) -> Body:
    """A streamed chat request with the sampling that most clients send."""
    return {
        "model": "bench",
        "messages": messages,
        "max_tokens": new_tokens,
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": 0.8,
        "top_p": 0.95,
        "seed": dice.randrange(2**31),
    }


def _message(role: str, dice: random.Random, words: int) -> Body:
    return {"role": role, "content": " ".join(dice.choices(WORDS, k=words))}
