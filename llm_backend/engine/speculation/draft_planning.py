"""Planning of a draft model: for which sequences it drafts, and how many tokens. Pure: no model, no
clock.

Every token that it drafts costs a pass of its own, shared by all its sequences, and a position in
the pass that verifies it. It also has to prefill each text, which is only worth it for a sequence
with many tokens still to come. One long text is begun at a time.
"""

from collections.abc import Callable
from collections.abc import Sequence as Texts
from dataclasses import dataclass

__all__ = ["DraftCosts", "DraftTarget", "drafts_to_write"]

_MARGIN = 1.05  # by how much a pass with drafts must be better: both sides are estimates
_USUAL_BEHIND = 2  # uncomputed tokens of a text for which it has just drafted
_NEAR = 16  # tokens whose pass costs little more than one of a few


@dataclass(frozen=True, kw_only=True)
class DraftTarget:
    """A decoding sequence. The draft model's next token is accepted by `chance`, after `unread`
    uncomputed tokens; `most` limits its tokens. Without the draft model `guesses` are computed,
    of which `expected` are right, the first one by `guess_chance`. About `ahead` tokens are
    still to come."""

    chance: float
    unread: int
    most: int
    ahead: int
    guesses: int = 0
    expected: float = 0.0
    guess_chance: float = 0.0


@dataclass(frozen=True, kw_only=True)
class DraftCosts:
    """Cost of a pass of so many tokens in seconds, of the model and of the draft model."""

    model: Callable[[int], float]
    draft: Callable[[int], float]


@dataclass(frozen=True, kw_only=True)
class _Choice:
    """At most `count` tokens for each of `members`: the tokens that all sequences gain by a
    pass, and the cost of all its parts."""

    members: tuple[int, ...]
    count: int
    gain: float
    cost: float

    @property
    def speed(self) -> float:
        return self.gain / self.cost


def drafts_to_write(
    targets: Texts[DraftTarget], *, tokens: int, room: int, costs: DraftCosts
) -> list[int]:
    """Number of tokens to draft for each of `targets`, in a pass that computes `tokens` besides
    guesses and has `room` for them."""
    ranked = sorted(
        (place for place, one in enumerate(targets) if one.most and one.chance > one.guess_chance),
        key=lambda place: -targets[place].chance,
    )
    near = [place for place in ranked if targets[place].unread <= _NEAR]
    plain = _without(targets, tokens, costs)
    best = _best(targets, near, tokens, room, costs, default=plain)
    if len(near) < len(ranked):
        far = min(set(ranked) - set(near), key=lambda place: targets[place].unread)
        more = [place for place in ranked if place == far or place in near]
        joined = _best(targets, more, tokens, room, costs, default=plain)
        if far in joined.members and _is_worth_reading(targets, far, joined, best, costs):
            best = joined
    if best.speed <= plain.speed * _MARGIN:
        return [0] * len(targets)
    return [
        min(best.count, target.most) if place in best.members else 0
        for place, target in enumerate(targets)
    ]


def _without(targets: Texts[DraftTarget], tokens: int, costs: DraftCosts) -> _Choice:
    """A pass without the draft model."""
    gain = len(targets) + sum(target.expected for target in targets)
    cost = costs.model(tokens + sum(target.guesses for target in targets))
    return _Choice(members=(), count=0, gain=gain, cost=cost)


def _best(
    targets: Texts[DraftTarget],
    ranked: list[int],
    tokens: int,
    room: int,
    costs: DraftCosts,
    *,
    default: _Choice,
) -> _Choice:
    """The fastest choice for the first ones of `ranked`, or `default` if that is faster."""
    choices = [
        choice
        for end in range(1, min(len(ranked), room) + 1)
        for choice in _choices(targets, tuple(ranked[:end]), tokens, room, costs)
    ]
    return max([default, *choices], key=lambda choice: choice.speed)


def _choices(
    targets: Texts[DraftTarget], members: tuple[int, ...], tokens: int, room: int, costs: DraftCosts
) -> list[_Choice]:
    """One token for each member, two tokens, and so on while there is room."""
    others = [target for place, target in enumerate(targets) if place not in members]
    gain = len(targets) + sum(target.expected for target in others)
    computed = sum(target.guesses for target in others)
    going = [targets[place] for place in members]
    writing = costs.draft(sum(min(target.unread, _USUAL_BEHIND) for target in going))
    choices: list[_Choice] = []
    while going and computed + len(going) <= room:
        count = len(choices) + 1
        if count > 1:
            writing += costs.draft(len(going))
        computed += len(going)
        gain += sum(target.chance**count for target in going)
        cost = costs.model(tokens + computed) + writing
        choices.append(_Choice(members=members, count=count, gain=gain, cost=cost))
        going = [target for target in going if target.most > count]
    return choices


def _is_worth_reading(
    targets: Texts[DraftTarget], reader: int, joined: _Choice, without: _Choice, costs: DraftCosts
) -> bool:
    """True if the prefill of a long text costs less than its drafts gain until its end."""
    gained = joined.gain / without.speed - joined.cost
    passes = targets[reader].ahead * len(targets) / joined.gain
    return gained * passes > costs.draft(targets[reader].unread)
