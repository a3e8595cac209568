"""The examples of property tests: the same ones in every run of the suite, in `make fuzz` others
each time."""

import hypothesis
from hypothesis.internal.conjecture import providers

__all__ = ["examples", "use_profile"]

_USUAL = 100  # examples of a property in the suite


def use_profile(fuzz_examples: int | None) -> None:
    """Loads the profile that property tests get: the suite's, or that of fuzzing with
    `fuzz_examples` of each property."""
    # How long an example takes says more of the machine than of the code.
    if fuzz_examples is None:
        suite = hypothesis.settings(
            max_examples=_USUAL, derandomize=True, database=None, deadline=None, print_blob=True
        )
        hypothesis.settings.register_profile("suite", suite)
        hypothesis.settings.load_profile("suite")
        _draw_no_constants_of_the_code()
        return
    fuzz = hypothesis.settings(
        max_examples=fuzz_examples, derandomize=False, deadline=None, print_blob=True
    )
    hypothesis.settings.register_profile("fuzz", fuzz)
    hypothesis.settings.load_profile("fuzz")


def examples(number: int) -> int:
    """The examples of a property that has `number` of them in the suite, because one takes long or
    little; more of them in proportion when fuzzing."""
    return max(1, round(number * hypothesis.settings().max_examples / _USUAL))


def _draw_no_constants_of_the_code() -> None:
    """Among its values Hypothesis draws constants that it finds in the modules that happen to be
    imported: the examples would depend on which tests ran before, and change with each line."""
    assert callable(providers._get_local_constants)
    none_of_them = providers._local_constants
    providers._get_local_constants = lambda: none_of_them
