"""Voices of blocks, joined with those heard before."""

import numpy as np
import pytest

from llm_backend.engine.voices.speakers import join_voices, scale_voice

EAST, NORTH = np.array([2.0, 0.0]), np.array([0.0, 1.0])


def test_voices_are_those_heard_before_or_new():
    positions, voices = join_voices([NORTH, 3 * EAST], [EAST], threshold=0.5)

    assert positions == [1, 0]
    assert [one.tolist() for one in voices] == [[8, 0], [0, 1]]  # sums are means over time


def test_two_voices_of_one_block_are_two_speakers():
    near = np.array([1.0, 0.1])
    positions, voices = join_voices([near, EAST], [EAST], threshold=0.5)

    assert positions == [1, 0]  # the nearest one is the one from before
    assert len(voices) == 2


@pytest.mark.parametrize("vector", [[0.0, 0.0], [float("nan"), 1.0], [float("inf"), 1.0]])
def test_a_voice_without_direction_is_nobodys(vector):
    nobody = scale_voice(vector, 1)
    positions, voices = join_voices([nobody, EAST], [nobody, EAST], threshold=2)

    assert positions == [2, 1]
    assert len(voices) == 3


def test_a_voice_has_the_length_of_its_time():
    assert scale_voice([3.0, 4.0], 10).tolist() == [6, 8]
