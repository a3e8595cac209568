"""A burst of chats and the servers that answer them, moment by moment (pure, and reproducible).

Every server has slots, whose speed depends on how many are in use as it was measured, and a bounded
line with a deadline. A balancer gives a chat to the server with the fewest unanswered ones, to
any, or to the one that has its prefix cached; what no server takes or answers in time is refused,
or goes to an upstream. What was said before in a conversation is computed where it is not cached.
"""

import heapq
import itertools
import random
from collections import OrderedDict, deque
from dataclasses import dataclass, field
from typing import Literal

from benchmarks.scale.capacity import speed
from benchmarks.scale.figures import Chat, Measured

__all__ = ["Burst", "Outcome", "Policy", "simulate"]


@dataclass(frozen=True, kw_only=True)
class Burst:
    """Chats arrive at random, at the share `calm` of the servers' capacity, and for a while at
    `times` that rate."""

    calm: float = 0.5
    times: float = 4.0
    begins_s: float = 120.0
    lasts_s: float = 60.0
    ends_s: float = 480.0


@dataclass(frozen=True, kw_only=True)
class Policy:
    """Balancing, limit and deadline of the queue at one server, and the target of the rest."""

    balance: Literal["any", "least", "prefix"] = "least"
    slack: int = 4  # further chats with which a server that has the prefix is still chosen
    falls_back: bool = False
    line: int = 64
    deadline_s: float = 30.0


@dataclass(kw_only=True)
class Outcome:
    """Outcome of the chats; `waits` are seconds in line of those answered here, by arrival."""

    waits: list[tuple[float, float]] = field(default_factory=list)
    refused: int = 0
    upstream: int = 0
    context_tokens: int = 0  # of earlier turns of the chats answered here
    computed_tokens: int = 0  # of them, not found in a cache

    @property
    def chats(self) -> int:
        """All that came."""
        return len(self.waits) + self.refused + self.upstream

    def wait_s(self, share: float) -> float:
        """The wait that this share of the chats answered here did not exceed."""
        waits = sorted(wait for _, wait in self.waits)
        return waits[min(len(waits) - 1, int(share * len(waits)))]


@dataclass(kw_only=True, eq=False)
class _Server:
    left: list[float] = field(default_factory=list)  # tokens of each running answer
    # arrival times of waiting chats, and their users
    line: deque[tuple[float, int]] = field(default_factory=deque)
    cached: OrderedDict[int, int] = field(default_factory=OrderedDict)  # tokens by user
    at_s: float = 0.0
    version: int = 0  # of what is planned for it; older plans are void

    @property
    def unanswered(self) -> int:
        return len(self.left) + len(self.line)


class _Run:
    def __init__(
        self, measured: Measured, chat: Chat, servers: int, burst: Burst, policy: Policy, seed: int
    ) -> None:
        self.measured, self.chat, self.burst, self.policy = measured, chat, burst, policy
        self.servers = [_Server() for _ in range(servers)]
        self.random, self.dice = random.Random(seed), random.Random(seed)
        self.outcome = Outcome()
        self.planned: list[tuple[float, int, _Server, int]] = []
        self.order = itertools.count()
        bears = servers * speed(measured, measured.slots) / chat.answer_tokens
        self.users = max(1, round(burst.calm * bears * chat.every_s))
        turn = chat.question_tokens + chat.answer_tokens
        self.earlier_tokens = [turn * (user % chat.turns) for user in range(self.users)]

    def run(self) -> Outcome:
        for now in self.arrivals():
            self.until(now)
            self.arrive(now)
        self.until(float("inf"))
        return self.outcome

    def arrivals(self) -> list[float]:
        """When chats come: at random, at a rate that is higher in the burst."""
        bears = len(self.servers) * speed(self.measured, self.measured.slots)
        calm_s = self.burst.calm * bears / self.chat.answer_tokens
        peak_s, now, arrived = calm_s * self.burst.times, 0.0, []
        while (now := now + self.random.expovariate(peak_s)) < self.burst.ends_s:
            in_burst = 0 <= now - self.burst.begins_s < self.burst.lasts_s
            if in_burst or self.random.random() < 1 / self.burst.times:
                arrived.append(now)
        return arrived

    def arrive(self, now: float) -> None:
        user = self.dice.randrange(self.users)
        server = self.choose_server(user)
        if len(server.left) >= self.measured.slots and len(server.line) >= self.policy.line:
            self.turned_away()
            return
        server.line.append((now, user))
        self.go_on(server, now)

    def choose_server(self, user: int) -> _Server:
        if self.policy.balance == "any":
            return self.random.choice(self.servers)
        idlest = min(self.servers, key=lambda server: server.unanswered)
        if self.policy.balance == "least":
            return idlest
        warmest = max(self.servers, key=lambda server: server.cached.get(user, 0))
        is_crowded = warmest.unanswered > idlest.unanswered + self.policy.slack
        return idlest if is_crowded or not warmest.cached.get(user) else warmest

    def turned_away(self) -> None:
        if self.policy.falls_back:
            self.outcome.upstream += 1
        else:
            self.outcome.refused += 1

    def until(self, now: float) -> None:
        """Let everything planned before `now` happen."""
        while self.planned and self.planned[0][0] <= now:
            at_s, _, server, version = heapq.heappop(self.planned)
            if version == server.version:
                self.go_on(server, at_s)

    def go_on(self, server: _Server, now: float) -> None:
        """Bring a server to `now`: answers grow, some end, those in line come in."""
        done = self.pace(server) * (now - server.at_s)
        server.left = [left - done for left in server.left if left - done > 1e-6]
        server.at_s = now
        while server.line and now - server.line[0][0] >= self.policy.deadline_s:
            server.line.popleft()
            self.turned_away()
        while server.line and len(server.left) < self.measured.slots:
            came, user = server.line.popleft()
            self.outcome.waits.append((came, now - came))
            answer = self.random.expovariate(1 / self.chat.answer_tokens) + 1
            server.left.append(answer + self.prefill(server, user))
        self.plan(server)

    def prefill(self, server: _Server, user: int) -> float:
        """Compute what was said before and is not cached, and cache it. Returns how many generated
        tokens take as long."""
        tokens = self.earlier_tokens[user]
        computed = tokens - min(tokens, server.cached.pop(user, 0))
        self.outcome.context_tokens += tokens
        self.outcome.computed_tokens += computed
        turn = self.chat.question_tokens + self.chat.answer_tokens
        server.cached[user] = tokens + turn
        self.earlier_tokens[user] = 0 if tokens >= turn * (self.chat.turns - 1) else tokens + turn
        if len(server.cached) > self.measured.cached_chats:
            server.cached.popitem(last=False)
        full = speed(self.measured, self.measured.slots)
        return computed * full / self.measured.prefill_s

    def plan(self, server: _Server) -> None:
        server.version += 1
        if not server.left:
            return
        next_s = server.at_s + max(min(server.left) / self.pace(server), 1e-6)
        heapq.heappush(self.planned, (next_s, next(self.order), server, server.version))

    def pace(self, server: _Server) -> float:
        """Tokens a second of each of its answers."""
        streams = len(server.left)
        return speed(self.measured, streams) / streams if streams else 0.0


def simulate(
    measured: Measured,
    chat: Chat,
    *,
    servers: int,
    burst: Burst,
    policy: Policy,
    seed: int = 1,
) -> Outcome:
    """Simulate every chat; the same seed gives the same outcome."""
    return _Run(measured, chat, servers, burst, policy, seed).run()
