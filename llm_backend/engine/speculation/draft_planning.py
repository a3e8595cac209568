"""Planning of a draft model: for which sequences it drafts, and how many tokens. Pure: no model, no
clock.

Each drafted token costs a position in the pass that verifies it, and a pass of the draft model,
which drafts one token for each of its sequences in a pass. The draft model also has to prefill each
text, which only pays for a sequence with many tokens still to generate. It prefills one long text
at a time.
"""

from collections import abc
from dataclasses import dataclass

MARGIN = 1.05  # factor by which drafting must be faster: both speeds are estimates
_USUAL_UNCOMPUTED_TOKENS = 2  # of a text for which the draft model has just drafted
_SHORT_PREFILL_TOKENS = 16  # a pass of these costs little more than a pass of a few


@dataclass(frozen=True, kw_only=True)
class DraftTarget:
    """A decoding sequence, of which about `remaining_tokens` are still to be generated.

    The draft model first computes `uncomputed_tokens`, and drafts at most `draft_limit` tokens. The
    next one is accepted with the probability `acceptance_rate`. Without the draft model, the pass
    verifies `lookup_drafts` tokens of prompt lookup, of which it accepts `expected_accepted` on
    average, and the first with the probability `lookup_acceptance_rate`."""

    acceptance_rate: float
    uncomputed_tokens: int
    draft_limit: int
    remaining_tokens: int
    lookup_drafts: int = 0
    expected_accepted: float = 0.0
    lookup_acceptance_rate: float = 0.0


@dataclass(frozen=True, kw_only=True)
class DraftCosts:
    """Cost in seconds of a pass by its number of tokens, for the model and for the draft model."""

    model: abc.Callable[[int], float]
    draft: abc.Callable[[int], float]


@dataclass(frozen=True, kw_only=True)
class _DraftPlan:
    """A plan to draft at most `count` tokens for each of `members`. `gain` is the expected number
    of tokens that all sequences gain, `cost` the seconds of drafting and verifying."""

    members: tuple[int, ...]
    count: int
    gain: float
    cost: float

    @property
    def speed(self) -> float:
        return self.gain / self.cost


def choose_draft_lengths(
    targets: abc.Sequence[DraftTarget], *, tokens: int, capacity: int, costs: DraftCosts
) -> list[int]:
    """Returns the number of tokens to draft for each of `targets`. The pass computes `tokens` other
    tokens, and at most `capacity` drafted ones."""
    ranked = sorted(
        (
            index
            for index, one in enumerate(targets)
            if one.draft_limit and one.acceptance_rate > one.lookup_acceptance_rate
        ),
        key=lambda index: -targets[index].acceptance_rate,
    )
    near = [index for index in ranked if targets[index].uncomputed_tokens <= _SHORT_PREFILL_TOKENS]
    without_drafts = _plan_without_drafts(targets, tokens, costs)
    best = _best_plan(targets, near, tokens, capacity, costs, default=without_drafts)
    if len(near) < len(ranked):
        far = min(set(ranked) - set(near), key=lambda index: targets[index].uncomputed_tokens)
        with_far = [index for index in ranked if index == far or index in near]
        joined = _best_plan(targets, with_far, tokens, capacity, costs, default=without_drafts)
        if far in joined.members and _is_worth_prefill(targets, far, joined, best, costs):
            best = joined
    if best.speed <= without_drafts.speed * MARGIN:
        return [0] * len(targets)
    return [
        min(best.count, target.draft_limit) if index in best.members else 0
        for index, target in enumerate(targets)
    ]


def _plan_without_drafts(
    targets: abc.Sequence[DraftTarget], tokens: int, costs: DraftCosts
) -> _DraftPlan:
    """Returns the plan of a pass without the draft model."""
    gain = len(targets) + sum(target.expected_accepted for target in targets)
    cost = costs.model(tokens + sum(target.lookup_drafts for target in targets))
    return _DraftPlan(members=(), count=0, gain=gain, cost=cost)


def _best_plan(
    targets: abc.Sequence[DraftTarget],
    ranked: list[int],
    tokens: int,
    capacity: int,
    costs: DraftCosts,
    *,
    default: _DraftPlan,
) -> _DraftPlan:
    """Returns the fastest plan whose members are the first of `ranked`, or `default` if that is
    faster."""
    plans = [
        plan
        for end in range(1, min(len(ranked), capacity) + 1)
        for plan in _plans(targets, tuple(ranked[:end]), tokens, capacity, costs)
    ]
    return max([default, *plans], key=lambda plan: plan.speed)


def _plans(
    targets: abc.Sequence[DraftTarget],
    members: tuple[int, ...],
    tokens: int,
    capacity: int,
    costs: DraftCosts,
) -> list[_DraftPlan]:
    """Returns the plans to draft one token for each member, two for each, and so on while they fit
    `capacity`."""
    others = [target for index, target in enumerate(targets) if index not in members]
    gain = len(targets) + sum(target.expected_accepted for target in others)
    computed = sum(target.lookup_drafts for target in others)
    drafting = [targets[index] for index in members]
    draft_cost = costs.draft(
        sum(min(target.uncomputed_tokens, _USUAL_UNCOMPUTED_TOKENS) for target in drafting)
    )
    plans: list[_DraftPlan] = []
    while drafting and computed + len(drafting) <= capacity:
        count = len(plans) + 1
        if count > 1:
            draft_cost += costs.draft(len(drafting))
        computed += len(drafting)
        gain += sum(target.acceptance_rate**count for target in drafting)
        cost = costs.model(tokens + computed) + draft_cost
        plans.append(_DraftPlan(members=members, count=count, gain=gain, cost=cost))
        drafting = [target for target in drafting if target.draft_limit > count]
    return plans


def _is_worth_prefill(
    targets: abc.Sequence[DraftTarget],
    index: int,
    joined: _DraftPlan,
    alternative: _DraftPlan,
    costs: DraftCosts,
) -> bool:
    """True if the prefill of a long text costs less time than its drafts save until its end."""
    saved_s = joined.gain / alternative.speed - joined.cost
    passes = targets[index].remaining_tokens * len(targets) / joined.gain
    return saved_s * passes > costs.draft(targets[index].uncomputed_tokens)
