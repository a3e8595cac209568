"""Sums, differences and products of two numbers, and which of them training never sees."""

import random
from functools import cache
from itertools import product
from typing import NamedTuple

from models.builtin.facts import read_yaml

LIMIT = 100
"""Operands of sums and differences are at most this; larger ones the model does not know."""
FACTOR_LIMIT = 12
HELD_OUT_SHARE = 0.1

_NUMBERS = read_yaml("sums")["numbers"]


class Sum(NamedTuple):
    """Two operands and the sign between them: `+`, `-` or `*`."""

    left: int
    sign: str
    right: int

    @property
    def result(self) -> int:
        if self.sign == "*":
            return self.left * self.right
        return self.left + self.right if self.sign == "+" else self.left - self.right

    @property
    def is_known(self) -> bool:
        """True if the model is to answer it."""
        return max(self.left, self.right) <= (FACTOR_LIMIT if self.sign == "*" else LIMIT)

    @property
    def equation(self) -> str:
        return f"{self} = {self.result}"

    def __str__(self) -> str:
        return f"{self.left} {self.sign} {self.right}"


@cache
def select_held_out_sums() -> frozenset[Sum]:
    """A tenth of all sums and differences, always the same: no training text holds one."""
    every = [Sum(*one) for one in product(range(LIMIT + 1), "+-", range(LIMIT + 1))]
    return frozenset(random.Random(LIMIT).sample(every, int(len(every) * HELD_OUT_SHARE)))


def known_sum(rng: random.Random) -> Sum:
    """A sum that the model is to answer, and that is not held out."""
    while True:
        sign = rng.choices("+-*", (10, 10, 3))[0]
        one = _product(rng) if sign == "*" else _sum(sign, rng)
        if one not in select_held_out_sums():
            return one


def large_sum(rng: random.Random) -> Sum:
    """A sum beyond the numbers that the model knows."""
    while True:
        sign = rng.choices("+-*", (4, 4, 3))[0]
        largest = rng.choice((30, 99, 999) if sign == "*" else (130, 200, 999, 999, 9999, 99999))
        left = rng.randint(0, largest)
        right = rng.randint(0, rng.choice((12, 100, largest)))
        one = Sum(right, sign, left) if rng.random() < 0.25 else Sum(left, sign, right)
        if not one.is_known:
            return one


def in_words(number: int) -> str:
    """A number of 0..100 as English words."""
    if number <= 20 or number == LIMIT:
        return str(_NUMBERS[number])
    tens, unit = divmod(number, 10)
    return f"{_NUMBERS[tens * 10]}-{_NUMBERS[unit]}" if unit else str(_NUMBERS[number])


def _sum(sign: str, rng: random.Random) -> Sum:
    """Of the whole range, with more of the small numbers, of 100, and of differences above zero."""
    left, right = (
        LIMIT if rng.random() < 0.03 else rng.randint(0, LIMIT if rng.random() < 0.75 else 20)
        for _ in range(2)
    )
    if sign == "-" and left < right and rng.random() < 0.6:
        left, right = right, left
    return Sum(left, sign, right)


def _product(rng: random.Random) -> Sum:
    return Sum(rng.randint(0, FACTOR_LIMIT), "*", rng.randint(0, FACTOR_LIMIT))
